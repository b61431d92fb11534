"""What an engine needs to know of a decoder."""

from __future__ import annotations

import abc
import enum
from collections.abc import Iterable, Sequence
from typing import ClassVar, Self


class Engine(enum.Enum):
    """What `make fuzz` drives a target with; CI drives them all with examples."""

    COVERAGE = "atheris"
    """Mutates what reached new code. One process, one thread."""
    EXAMPLES = "hypothesis"
    """Mutates the seeds, blindly: for targets with threads or processes of their own."""


class Target(abc.ABC):
    """A decoder that strangers reach.

    One that holds something (a loop, a server, files) overrides `close`, and makes it in
    `__init__`. Class variables: `name`; `engine`; `examples`, how many CI makes; `max_bytes`, the
    longest input; `tokens`, what means something to the decoder, for mutations to put in.
    """

    name: ClassVar[str]
    engine: ClassVar[Engine] = Engine.COVERAGE
    examples: ClassVar[int] = 300
    max_bytes: ClassVar[int] = 4096
    tokens: ClassVar[Sequence[bytes]] = ()

    @abc.abstractmethod
    def seeds(self) -> Iterable[bytes]:
        """Valid inputs, and wrong ones that take some making; the same at each call."""

    @abc.abstractmethod
    def run(self, data: bytes) -> None:
        """Decode `data`. Whatever is raised is a finding: promised refusals are caught here."""

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Give back what is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
