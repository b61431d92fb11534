"""Between what reads the task app and the session that is connected: who tells whom what.

No HTTP and no gRPC: both sides stand on this.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from tasklogs.agent.task_app.listing import Prefix
from tasklogs.enums import AppHealth
from tasklogs.log.entry import Entry


class Effect(enum.Enum):
    """What an event does to the conversation as it is known."""

    CHANGED = enum.auto()
    STALE = enum.auto()
    """It is older than what is known."""
    UNCERTAIN = enum.auto()
    """Something may have happened that events do not tell: a whole list must be read."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The whole conversation as the task app showed it, and by which of its processes.

    lags: it is the burst of an event stream, which may be older than what `/messages` said before.
    """

    entries: list[Entry]
    process: int
    lags: bool
    status: str | None = None
    skipped: int = 0
    """So many messages before `entries` stand as they did in the known prefix."""
    prefix: Prefix | None = None
    """The prefix to know next time."""


class Listener(Protocol):
    """Who gets what the task app shows: the session that is connected."""

    @property
    def sealed(self) -> int:
        """How many entries are sent and sealed."""
        ...

    @property
    def last_id(self) -> int:
        """The highest id that is shown; -1 where none is."""
        ...

    def show_list(self, shown: Shown, newer: Iterable[Entry]) -> Effect:
        """Take a whole list, and the entries that events showed since it was asked for."""
        ...

    def show_entry(self, entry: Entry, process: int) -> Effect:
        """Take one entry that an event showed."""
        ...

    def health_changed(self) -> None:
        """Look at `Source.health` again."""
        ...


class Source(Protocol):
    """Where a session's conversation comes from."""

    @property
    def health(self) -> AppHealth:
        """What is to be reported now."""
        ...

    def attach(self, listener: Listener) -> None:
        """Pass on what the task app shows, beginning with a whole list."""
        ...

    def detach(self) -> None:
        """Pass on nothing more."""
        ...

    async def refresh(self) -> None:
        """Pass on the whole list as it is after this call. Raises TaskAppError."""
        ...
