"""The interfaces between a source, which has the conversation, and the session that sends it.

No HTTP and no gRPC: both sides import this.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from tasklogs.enums import AppHealth
from tasklogs.log.continuation import Position, Verdict
from tasklogs.log.entry import Entry, Time

_MAX_REASON = 200
_CONTROL = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+")


class SourceError(Exception):
    """The source could not be read. `str()` is one line without content of the conversation."""

    def __init__(self, reason: str) -> None:
        super().__init__(one_line(reason))


def one_line(text: str) -> str:
    """Return `text` on one line of at most 200 characters."""
    line = _CONTROL.sub(" ", text).strip()
    return line if len(line) <= _MAX_REASON else line[: _MAX_REASON - 1] + "…"


class Effect(enum.Enum):
    """What an event or a list does to the conversation as it is known."""

    CHANGED = enum.auto()
    STALE = enum.auto()
    """It is older than what is known."""
    UNCERTAIN = enum.auto()
    """Something may have happened that events do not show: a whole list must be read."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The whole conversation as a source showed it, and which process did.

    process: a number that changes whenever what is shown may have started over.
    lags: it may be older than an earlier list (AgentAPI: the burst of an event stream).
    """

    entries: list[Entry]
    process: int
    lags: bool
    skipped: int = 0
    """How many messages precede `entries`, unchanged since the known prefix."""
    verdict: Verdict | None = None
    """How the list relates to the stored epoch, if the source has found out: it may skip entries in
    its first list, too. None: the session compares them."""


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in an epoch: everything before entry `index`, and that entry as it was at `time`."""

    index: int
    """How many entries of the epoch precede it."""
    time: Time


class Listener(Protocol):
    """Receives what a source shows: the session that is connected."""

    @property
    def stored(self) -> Position:
        """What `Welcome` said about the stored log."""
        ...

    @property
    def sealed(self) -> int:
        """How many entries are sent and sealed."""
        ...

    @property
    def last_id(self) -> int:
        """The highest id that is shown; -1 if there is none."""
        ...

    def show_list(self, shown: Shown, newer: Iterable[Entry]) -> Effect:
        """Apply a whole list, and the entries that events showed since it was requested."""
        ...

    def show_entry(self, entry: Entry, process: int) -> Effect:
        """Apply one entry that an event showed."""
        ...

    def fitted(self, entry: Entry) -> Entry | None:
        """Return `entry` as this server can store it; None if it does not store this type."""
        ...

    def wake(self) -> None:
        """Call `Source.offer` as soon as something can be sent."""
        ...

    def health_changed(self) -> None:
        """`Source.health` may have changed."""
        ...


class Source(Protocol):
    """Supplies a session with the conversation."""

    @property
    def kind(self) -> str:
        """Names the source for operators, for example `agentapi`: `Hello.task_app`."""
        ...

    @property
    def health(self) -> AppHealth:
        """The health to report now."""
        ...

    def attach(self, listener: Listener) -> None:
        """Pass on what there is, beginning with a whole list."""
        ...

    def detach(self) -> None:
        """Stop passing on."""
        ...

    def offer(self) -> None:
        """Pass on what waits, if anything does: the session can send now."""
        ...

    def committed(self, mark: Mark) -> None:
        """Everything up to `mark` that was passed on is stored."""
        ...

    async def refresh(self) -> None:
        """Read what there is after this call, and pass it on. Raises SourceError."""
        ...
