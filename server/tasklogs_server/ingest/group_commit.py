"""Group commit: what all sessions of the process have pending goes into one transaction.

While it runs the next batch gathers, the changes of one tail coalesced. No timer stands in the way
of a small change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol
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
# Where every head of a batch was locked, whoever holds the locks needs a moment.
_LOCKED_PAUSE_SECONDS = 0.005
# What the store refuses of one task, it will refuse again: nothing of it changes by itself.
_REFUSED_RETRY_AFTER = timedelta(minutes=1)
_UNAVAILABLE_RETRY_AFTER = timedelta(seconds=1)

_log = structlog.get_logger(__name__)


class Writer(Protocol):
    """Whoever has changes to commit; at most one commit of a writer is under way."""

    def take(self) -> Commit | None:
        """Hand over what has gathered; None: nothing."""

    def committed(self, commit: Commit) -> None:
        """The commit is durable."""

    def lost(self, error: Exception) -> None:
        """The commit, and all that builds on it, will never be."""

    def undecided(self) -> None:
        """Perhaps the commit is durable, perhaps it never will be; it is not tried again."""


class Committer:
    """Takes what writers have gathered, batch after batch."""

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
        """Say that `writer` has something to take; it is asked once the batch before is done."""
        self._waiting[writer] = None
        self._wake.set()

    def withdraw(self, writer: Writer) -> None:
        """Ask `writer` for nothing more; what it handed over already is settled all the same."""
        self._waiting.pop(writer, None)

    async def run(self) -> None:
        """Commit batches until cancelled. It must run for as long as there are writers."""
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
            commit = self._take(writer)
            if commit is None:
                continue
            if self._add(batch, tasks, writer, commit):
                size_bytes += commit.size_bytes
        return batch

    def _add(
        self,
        batch: list[tuple[Writer, Commit]],
        tasks: set[UUID],
        writer: Writer,
        commit: Commit,
    ) -> bool:
        """Add a commit to the batch, or keep it for the next one.

        An old and a new session of one task, or two uploads: outcomes are by task, and what became
        of the one's commit would be told to the other.
        """
        if commit.task_id in tasks:
            self._locked.append((writer, commit))
            return False
        tasks.add(commit.task_id)
        batch.append((writer, commit))
        return True

    def _take(self, writer: Writer) -> Commit | None:
        try:
            return writer.take()
        except Exception as error:  # of one writer: the others' commits go on
            _log.exception("commit.writer_failed")
            _lose(writer, error)
            return None

    async def _commit(self, batch: Sequence[tuple[Writer, Commit]]) -> None:
        try:
            with self._observer.committing(
                tasks=len(batch), size_bytes=sum(commit.size_bytes for _, commit in batch)
            ):
                outcomes = await self._writes.commit([commit for _, commit in batch])
        except StoreUnavailable:
            # Perhaps committed, perhaps not: nothing is acknowledged, and Welcome will tell.
            _log.warning("commit.undecided", tasks=len(batch))
            for writer, _ in batch:
                _leave_undecided(writer)
            return
        except Exception:  # nothing known: the same holds, and the next batch may fare better
            _log.exception("commit.failed", tasks=len(batch))
            for writer, _ in batch:
                _leave_undecided(writer)
            return
        if all(outcome is Outcome.UNAVAILABLE for outcome in outcomes.values()):
            _log.warning("store.writes_refused", tasks=len(batch))
        for writer, commit in batch:
            try:
                self._settle(writer, commit, outcomes[commit.task_id])
            except Exception as error:
                _log.exception("commit.writer_failed", task=str(commit.task_id))
                _lose(writer, error)
        if all(outcome is Outcome.LOCKED for outcome in outcomes.values()):
            await asyncio.sleep(_LOCKED_PAUSE_SECONDS)

    def _settle(self, writer: Writer, commit: Commit, outcome: Outcome) -> None:
        match outcome:
            case Outcome.COMMITTED:
                writer.committed(commit)
                self._bus.publish(Moved(commit.task_id, commit))
            case Outcome.LOCKED:
                self._locked.append((writer, commit))
                self._wake.set()
            case Outcome.FENCED:
                writer.lost(SessionSuperseded())
            case Outcome.MOVED:
                writer.lost(SessionLost())
            case Outcome.GONE:
                writer.lost(TaskNotFound(str(commit.task_id)))
            case Outcome.CORRUPT:
                writer.lost(LogCorrupt())
            case Outcome.REFUSED:
                writer.lost(CommitRefused(_REFUSED_RETRY_AFTER))
            case Outcome.UNAVAILABLE:
                writer.lost(StoreUnavailable(_UNAVAILABLE_RETRY_AFTER))


def _leave_undecided(writer: Writer) -> None:
    try:
        writer.undecided()
    except Exception:
        _log.exception("commit.writer_failed")


def _lose(writer: Writer, error: Exception) -> None:
    try:
        writer.lost(error)
    except Exception:
        _log.exception("commit.writer_failed")
