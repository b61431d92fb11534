"""The events that a follow yields.

The `cursor` of an event continues after it. Later versions may add events, and fields to events. So
events are made with keywords only, and matched by keyword: `case EpochStarted(epoch=epoch)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from tasklogs.client.entry import LogEntry
from tasklogs.client.task import StatusDetail
from tasklogs.enums import TaskStatus
from tasklogs.errors import TaskLogsRpcError


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusChanged:
    """The task's status: the first event of a follow, and one for each change."""

    cursor: str
    status: TaskStatus
    detail: StatusDetail
    task_id: str | None = None
    """The task's UUID in the first event, else None. Names are reused, and UUIDs are not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryChange:
    """An entry that is new to this follow, or has changed since the follow yielded it.

    `entry` is always the whole entry in its new state.
    """

    entry: LogEntry
    replaces: int | None = None
    """The revision of the entry that the follow yielded before; None: it is new."""
    kept: int = 0
    """How many leading characters of the content that was yielded before are unchanged."""
    appended: str | None = None
    """The text to append to the content that was yielded before; for a new entry, all of its
    content. None: some of the content that was yielded before has changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntriesChanged:
    """Entries that are new or have changed, in the order of their revisions.

    The same id again within an epoch replaces what was yielded before.
    """

    cursor: str
    epoch: int
    changes: tuple[EntryChange, ...]

    @property
    def entries(self) -> tuple[LogEntry, ...]:
        """The whole entries."""
        return tuple(change.entry for change in self.changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryWithdrawn:
    """The entry is no longer part of the conversation."""

    cursor: str
    epoch: int
    id: int
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochStarted:
    """A new conversation begins, with ids from 0. Earlier epochs can still be read."""

    cursor: str
    epoch: int
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CaughtUp:
    """All entries that existed when the follow began have been yielded. Once per follow."""

    cursor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Nothing is new: everything up to the cursor has been yielded. Only if requested."""

    cursor: str


FollowEvent: TypeAlias = (
    StatusChanged | EntriesChanged | EntryWithdrawn | EpochStarted | CaughtUp | Progress
)
"""What a follow yields. Later versions may add events: end a `match` with `case _: pass`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnecting:
    """The stream of a follow broke. It reconnects after `delay`. Passed to `on_reconnect`."""

    error: TaskLogsRpcError
    attempt: int
    """The number of failures in a row, from 1."""
    delay: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnected:
    """The follow continues where it was. Passed to `on_reconnect`."""
