"""What an engine needs to know about a decoder."""

from __future__ import annotations

import abc
import enum
from collections.abc import Iterable, Sequence
from typing import ClassVar, Self


class Engine(enum.Enum):
    """The engine that `make fuzz` uses for a target. CI uses examples for all targets."""

    COVERAGE = "atheris"
    """Mutates inputs that reached new code. Needs one process and one thread."""
    EXAMPLES = "hypothesis"
    """Mutates the seeds without feedback: for targets with threads or processes of their own."""


class Target(abc.ABC):
    """A decoder that untrusted input reaches.

    A target with resources (a loop, a server, files) creates them in `__init__` and overrides
    `close`. Class variables: `name`; `engine`; `examples`, the number of inputs in CI; `max_bytes`,
    the longest input; `tokens`, byte strings with a meaning for the decoder, used by mutations.
    """

    name: ClassVar[str]
    engine: ClassVar[Engine] = Engine.COVERAGE
    examples: ClassVar[int] = 300
    max_bytes: ClassVar[int] = 4096
    tokens: ClassVar[Sequence[bytes]] = ()

    @abc.abstractmethod
    def seeds(self) -> Iterable[bytes]:
        """Valid inputs, and invalid ones that are hard to make. The same at each call."""

    @abc.abstractmethod
    def run(self, data: bytes) -> None:
        """Decode `data`. Any exception is a finding, so expected refusals are caught here."""

    def close(self) -> None:  # noqa: B027 - most targets have no resources
        """Release the resources."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
