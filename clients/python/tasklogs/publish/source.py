"""The interfaces between what reads the task app and the session that is connected.

No HTTP and no gRPC: both sides import this.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from tasklogs.agent.sources.agentapi.listing import Prefix
from tasklogs.enums import AppHealth
from tasklogs.log.entry import Entry


class Effect(enum.Enum):
    """What an event or a list does to the conversation as it is known."""

    CHANGED = enum.auto()
    STALE = enum.auto()
    """It is older than what is known."""
    UNCERTAIN = enum.auto()
    """Something may have happened that events do not show: a whole list must be read."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The whole conversation as the task app showed it, and which of its processes did.

    lags: it is the burst of an event stream, which may be older than an earlier `/messages`.
    """

    entries: list[Entry]
    process: int
    lags: bool
    status: str | None = None
    skipped: int = 0
    """How many messages precede `entries`, unchanged since the known prefix."""
    prefix: Prefix | None = None
    """The prefix for the next read."""


class Listener(Protocol):
    """Receives what the task app shows: the session that is connected."""

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

    def health_changed(self) -> None:
        """`Source.health` may have changed."""
        ...


class Source(Protocol):
    """Supplies a session with the conversation."""

    @property
    def health(self) -> AppHealth:
        """The health to report now."""
        ...

    def attach(self, listener: Listener) -> None:
        """Pass on what the task app shows, beginning with a whole list."""
        ...

    def detach(self) -> None:
        """Stop passing on."""
        ...

    async def refresh(self) -> None:
        """Read the whole list after this call, and pass it on. Raises TaskAppError."""
        ...
