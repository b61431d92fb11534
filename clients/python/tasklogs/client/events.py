"""What a follow yields.

`cursor`, on every event, resumes after it: all up to and including the event has been yielded.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from tasklogs.client.entry import LogEntry
from tasklogs.client.task import StatusDetail
from tasklogs.enums import TaskStatus
from tasklogs.errors import TaskLogsRpcError


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """The task's status: the first event of a follow, and whenever it changes."""

    cursor: str
    status: TaskStatus
    detail: StatusDetail


@dataclass(frozen=True, slots=True)
class EntryChange:
    """An entry that is new to this follow, or has changed since the follow yielded it.

    `entry` is the whole entry in its new state, always.
    """

    entry: LogEntry
    replaces: int | None = None
    """The revision of it that the follow yielded before; None: it is new."""
    kept: int = 0
    """How many leading characters of the content yielded before are still there."""
    appended: str | None = None
    """The text that follows what was yielded before, to be printed as it is; for a new entry all of
    its content. None: something yielded before was rewritten."""


@dataclass(frozen=True, slots=True)
class EntriesChanged:
    """Entries that are new or have changed, in the order of their revisions.

    The same id again within an epoch replaces what was yielded before.
    """

    cursor: str
    epoch: int
    changes: tuple[EntryChange, ...]

    @property
    def entries(self) -> tuple[LogEntry, ...]:
        """The entries alone, whole."""
        return tuple(change.entry for change in self.changes)


@dataclass(frozen=True, slots=True)
class EntryWithdrawn:
    """The entry is no longer part of the conversation."""

    cursor: str
    epoch: int
    id: int
    revision: int


@dataclass(frozen=True, slots=True)
class EpochStarted:
    """Another conversation begins, its ids from 0 again; earlier epochs stay readable."""

    cursor: str
    epoch: int
    revision: int


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """All that there was when the follow began has been yielded. Once in a follow."""

    cursor: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Nothing new; all up to the cursor has been yielded. Only where it was asked for."""

    cursor: str


FollowEvent: TypeAlias = (
    StatusChanged | EntriesChanged | EntryWithdrawn | EpochStarted | CaughtUp | Progress
)


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """The stream of a follow broke; it goes on after `delay`. Told to `on_reconnect`."""

    error: TaskLogsRpcError
    attempt: int
    """Counts the failures in a row, from 1."""
    delay: timedelta


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The follow goes on where it was. Told to `on_reconnect`."""
