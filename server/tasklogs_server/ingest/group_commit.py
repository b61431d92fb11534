"""Group commit: one transaction writes the pending changes of all sessions of the process.

While a batch is committed, writers collect the next one, and changes of one tail coalesce. There is
no timer: if no commit is under way, a small change is committed at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Literal, Protocol
from uuid import UUID

import structlog

from tasklogs_server.bus.local import LocalBus
from tasklogs_server.bus.notes import Moved
from tasklogs_server.domain.errors import (
    CommitRefused,
    LogCorrupt,
    SessionLost,
    SessionSuperseded,
    StoreUnavailable,
    TaskNotFound,
)
from tasklogs_server.store.log_writes import LogWrites, Outcome
from tasklogs_server.store.records import Commit
from tasklogs_server.telemetry.observer import Observer

_BATCH_BYTES = 8 * 1024 * 1024
_BATCH_COMMITS = 500
# If every head of a batch was locked, the transactions that hold the locks need some time.
_LOCKED_PAUSE_SECONDS = 0.005
# The store will refuse a task's rows again until an operator repairs the task.
_REFUSED_RETRY_AFTER = timedelta(minutes=1)
_UNAVAILABLE_RETRY_AFTER = timedelta(seconds=1)

_log = structlog.get_logger(__name__)


class Writer(Protocol):
    """A source of changes to commit. At most one commit of a writer is under way."""

    def next_commit(self) -> Commit | None:
        """Return a commit with all changes since the last one; None: there are none."""

    def committed(self, commit: Commit) -> None:
        """Called when the commit is durable."""

    def lost(self, error: Exception) -> None:
        """Called when the commit, and what builds on it, will never be stored."""

    def undecided(self) -> None:
        """Called when it is unknown whether the commit is durable. It is not tried again."""


class GroupCommit:
    """Commits the changes of writers, batch after batch."""

    def __init__(
        self, writes: LogWrites, bus: LocalBus, *, observer: Observer | None = None
    ) -> None:
        self._writes = writes
        self._observer = observer or Observer()
        self._bus = bus
        self._waiting: dict[Writer, None] = {}
        self._locked: list[tuple[Writer, Commit]] = []
        self._wake = asyncio.Event()

    def submit(self, writer: Writer) -> None:
        """Ask `writer` for its next commit when the current batch is done."""
        self._waiting[writer] = None
        self._wake.set()

    def withdraw(self, writer: Writer) -> None:
        """Ask `writer` for no more commits. It still gets the outcome of its current one."""
        self._waiting.pop(writer, None)

    async def run(self) -> None:
        """Commit batches until cancelled. It must run as long as there are writers."""
        while True:
            await self._wake.wait()
            batch = self._gather()
            if not self._waiting and not self._locked:
                self._wake.clear()
            if batch:
                await self._commit(batch)

    def _gather(self) -> Sequence[tuple[Writer, Commit]]:
        held, self._locked = self._locked, []
        busy = {writer for writer, _ in held}
        batch: list[tuple[Writer, Commit]] = []
        tasks: set[UUID] = set()
        for writer, locked in held:
            self._add(batch, tasks, writer, locked)
        size_bytes = sum(commit.size_bytes for _, commit in batch)
        for writer in list(self._waiting):
            if size_bytes >= _BATCH_BYTES or len(batch) >= _BATCH_COMMITS:
                break
            if writer in busy:
                continue
            del self._waiting[writer]
            try:
                commit = writer.next_commit()
            except Exception as error:  # only this writer fails: the other commits continue
                _log.exception("writer.failed")
                _lose(writer, error)
                continue
            if commit is not None and self._add(batch, tasks, writer, commit):
                size_bytes += commit.size_bytes
        return batch

    def _add(
        self,
        batch: list[tuple[Writer, Commit]],
        tasks: set[UUID],
        writer: Writer,
        commit: Commit,
    ) -> bool:
        """Add a commit to the batch. Keep it for the next batch if its task is in this one.

        A task may have two writers: an old and a new session, or two uploads. Outcomes are by task,
        so in one batch one writer would get the outcome of the other.
        """
        if commit.task_id in tasks:
            self._locked.append((writer, commit))
            return False
        tasks.add(commit.task_id)
        batch.append((writer, commit))
        return True

    async def _commit(self, batch: Sequence[tuple[Writer, Commit]]) -> None:
        try:
            with self._observer.committing(
                tasks=len(batch), size_bytes=sum(commit.size_bytes for _, commit in batch)
            ):
                outcomes = await self._writes.commit([commit for _, commit in batch])
        except StoreUnavailable:
            # The commit may or may not have succeeded. Nothing is acknowledged. The next Welcome
            # says which.
            _log.warning("commit.undecided", tasks=len(batch))
            for writer, _ in batch:
                _leave_undecided(writer)
            return
        except Exception:  # as above, and the next batch may succeed
            _log.exception("commit.failed", tasks=len(batch))
            for writer, _ in batch:
                _leave_undecided(writer)
            return
        if all(outcome is Outcome.UNAVAILABLE for outcome in outcomes.values()):
            _log.warning("store.writes_refused", tasks=len(batch))
        for writer, commit in batch:
            self._settle(writer, commit, outcomes[commit.task_id])
        if all(outcome is Outcome.LOCKED for outcome in outcomes.values()):
            await asyncio.sleep(_LOCKED_PAUSE_SECONDS)

    def _settle(self, writer: Writer, commit: Commit, outcome: Outcome) -> None:
        try:
            match outcome:
                case Outcome.COMMITTED:
                    writer.committed(commit)
                    self._bus.publish(Moved(commit.task_id, commit))
                case Outcome.LOCKED:
                    self._locked.append((writer, commit))
                    self._wake.set()
                case _:
                    writer.lost(error_of(outcome, commit.task_id))
        except Exception as error:
            _log.exception("writer.failed", task=str(commit.task_id))
            _lose(writer, error)


_Refusal = Literal[
    Outcome.LOCKED,
    Outcome.FENCED,
    Outcome.MOVED,
    Outcome.GONE,
    Outcome.CORRUPT,
    Outcome.REFUSED,
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
        case Outcome.UNAVAILABLE | Outcome.LOCKED:
            return StoreUnavailable(_UNAVAILABLE_RETRY_AFTER)


def _leave_undecided(writer: Writer) -> None:
    try:
        writer.undecided()
    except Exception:
        _log.exception("writer.failed")


def _lose(writer: Writer, error: Exception) -> None:
    try:
        writer.lost(error)
    except Exception:
        _log.exception("writer.failed")
