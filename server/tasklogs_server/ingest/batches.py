"""Batches of commits: what a writer is, what it is told of each outcome, and who may try again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Literal, Protocol
from uuid import UUID

import structlog

from tasklogs_server.bus.interface import Bus
from tasklogs_server.bus.notes import Moved
from tasklogs_server.domain.errors import (
    CommitRefused,
    LogCorrupt,
    SessionLost,
    SessionSuperseded,
    StoreUnavailable,
    TaskNotFound,
)
from tasklogs_server.store.errors import concerns_one_task
from tasklogs_server.store.log_writes import Lane, LogWrites, Outcome
from tasklogs_server.store.records import Commit
from tasklogs_server.telemetry.observer import Observer

# The store will refuse a task's rows again until an operator repairs the task.
_REFUSED_RETRY_AFTER = timedelta(minutes=1)
_UNAVAILABLE_RETRY_AFTER = timedelta(seconds=1)

_log = structlog.get_logger(__name__)


class Writer(Protocol):
    """A source of changes to commit. At most one commit of a writer is under way."""

    @property
    def pending_bytes(self) -> int:
        """About how many bytes of content and text the next commit has."""

    def next_commit(self) -> Commit | None:
        """Return a commit with all changes since the last one; None: there are none."""

    def committed(self, commit: Commit) -> None:
        """Called when the commit is durable."""

    def lost(self, error: Exception) -> None:
        """Called when the commit, and what builds on it, will never be stored."""

    def undecided(self) -> None:
        """Called when it is unknown whether the commit is durable. It is not tried again."""


class Batches:
    """Writes batches of commits, at most one commit per task, and tells the writers."""

    def __init__(self, writes: LogWrites, bus: Bus, observer: Observer) -> None:
        self._writes = writes
        self._bus = bus
        self._observer = observer

    async def write(
        self, batch: Sequence[tuple[Writer, Commit]], lane: Lane = Lane.BATCHES
    ) -> Sequence[tuple[Writer, Commit, Outcome]]:
        """Write a batch. Return the commits to try again: they are LOCKED or POSTPONED."""
        outcomes = await self._outcomes(batch, lane)
        again: list[tuple[Writer, Commit, Outcome]] = []
        for writer, commit in batch:
            match outcomes.get(commit.task_id):
                case None:
                    _leave_undecided(writer)
                case (Outcome.LOCKED | Outcome.POSTPONED) as outcome:
                    again.append((writer, commit, outcome))
                case outcome:
                    self._settle(writer, commit, outcome)
        return again

    async def locked_heads(self, task_ids: Sequence[UUID]) -> frozenset[UUID]:
        """Return the tasks whose heads another transaction has locked now.

        If the store does not say, all count as locked.
        """
        try:
            return frozenset(await self._writes.locked_heads(task_ids))
        except Exception as error:
            if not concerns_one_task(error):
                return frozenset(task_ids)
            # One task's head is bad. Each commit is tried, and finds out for itself.
            return frozenset()

    async def _outcomes(
        self, batch: Sequence[tuple[Writer, Commit]], lane: Lane
    ) -> Mapping[UUID, Outcome]:
        """Return the outcomes by task; nothing if it is unknown what was stored."""
        try:
            with self._observer.committing(
                tasks=len(batch), size_bytes=sum(commit.size_bytes for _, commit in batch)
            ):
                outcomes = await self._writes.commit([one for _, one in batch], lane)
        except StoreUnavailable:
            # The commit may or may not have succeeded. Nothing is acknowledged. The next Welcome
            # says which.
            _log.warning("commit.undecided", tasks=len(batch))
            return {}
        except Exception:  # as above, and the next batch may succeed
            _log.exception("commit.failed", tasks=len(batch))
            return {}
        if all(outcome is Outcome.UNAVAILABLE for outcome in outcomes.values()):
            _log.warning("store.writes_refused", tasks=len(batch))
        return outcomes

    def _settle(self, writer: Writer, commit: Commit, outcome: Outcome) -> None:
        try:
            match outcome:
                case Outcome.COMMITTED:
                    writer.committed(commit)
                    self._bus.publish(Moved(commit.task_id, commit))
                case _:
                    writer.lost(error_of(outcome, commit.task_id))
        except Exception as error:
            _log.exception("writer.failed", task=str(commit.task_id))
            lose(writer, error)


_Refusal = Literal[
    Outcome.LOCKED,
    Outcome.POSTPONED,
    Outcome.FENCED,
    Outcome.MOVED,
    Outcome.GONE,
    Outcome.CORRUPT,
    Outcome.REFUSED,
    Outcome.AWAY,
    Outcome.UNAVAILABLE,
]


def error_of(outcome: _Refusal, task_id: UUID) -> Exception:
    """Return what a writer is told whose commit had this outcome."""
    match outcome:
        case Outcome.FENCED:
            return SessionSuperseded()
        case Outcome.MOVED:
            return SessionLost()
        case Outcome.GONE:
            return TaskNotFound(str(task_id))
        case Outcome.CORRUPT:
            return LogCorrupt()
        case Outcome.REFUSED:
            return CommitRefused(_REFUSED_RETRY_AFTER)
        case Outcome.AWAY | Outcome.UNAVAILABLE | Outcome.LOCKED | Outcome.POSTPONED:
            return StoreUnavailable(_UNAVAILABLE_RETRY_AFTER)


def lose(writer: Writer, error: Exception) -> None:
    """Tell the writer that its commit is lost. A writer that fails affects no other."""
    try:
        writer.lost(error)
    except Exception:
        _log.exception("writer.failed")


def _leave_undecided(writer: Writer) -> None:
    try:
        writer.undecided()
    except Exception:
        _log.exception("writer.failed")
