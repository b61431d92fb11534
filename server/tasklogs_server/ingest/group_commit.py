"""Group commit: one transaction writes the pending changes of all sessions of the process.

While a batch is committed, writers collect the next one, and changes of one tail coalesce. There is
no timer: if no commit is under way, a small change is committed at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

from tasklogs_server.bus.interface import Bus
from tasklogs_server.concurrency.background import background
from tasklogs_server.ingest.batches import Batches, Writer
from tasklogs_server.ingest.held_commits import HeldCommits
from tasklogs_server.ingest.large_changes import LARGE_BYTES, LargeChanges, next_commit_of
from tasklogs_server.limits.ingest_budget import IngestBudget
from tasklogs_server.store.log_writes import LogWrites, Outcome
from tasklogs_server.store.records import Commit
from tasklogs_server.telemetry.observer import Observer

BATCH_BYTES = 8 * 1024 * 1024
BATCH_COMMITS = 500
# A row takes some microseconds to make. Without a cost, small rows would not fill a batch, and all
# other calls would wait for it.
_ROW_COST_BYTES = 4096


class GroupCommit:
    """Commits the changes of writers, batch after batch.

    A commit of a task whose rows another transaction holds leaves the batches, and counts against
    none, until it is settled. So does a large one. `budget`: see HeldCommits.
    """

    def __init__(
        self,
        writes: LogWrites,
        bus: Bus,
        *,
        budget: IngestBudget | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._batches = Batches(writes, bus, observer or Observer())
        self._waiting: dict[Writer, None] = {}
        self._again: list[tuple[Writer, Commit]] = []
        """Commits of the next batch: postponed, or behind another commit of their task."""
        self._parked: set[Writer] = set()
        """Writers that have more to commit, and a commit that is held or large."""
        self._held = HeldCommits(self._batches, budget, on_settled=self._unpark)
        self._large = LargeChanges(self._batches, on_held=self._held.add, on_settled=self._unpark)
        self._wake = asyncio.Event()

    @property
    def held_tasks(self) -> int:
        """How many tasks have a commit that waits for the lock of another transaction."""
        return self._held.tasks

    def submit(self, writer: Writer) -> None:
        """Ask `writer` for its next commit when the current batch is done."""
        self._waiting[writer] = None
        self._wake.set()

    def withdraw(self, writer: Writer) -> None:
        """Ask `writer` for no more commits. It still gets the outcome of its current one."""
        self._waiting.pop(writer, None)
        self._parked.discard(writer)
        self._large.withdraw(writer)

    async def run(self) -> None:
        """Commit batches until cancelled. It must run as long as there are writers."""
        async with background(self._held.run()), background(self._large.run()):
            while True:
                await self._wake.wait()
                batch = self._gather()
                if not self._waiting and not self._again:
                    self._wake.clear()
                if batch:
                    await self._commit(batch)
                del batch  # it must not be held until the next one comes

    def _gather(self) -> Sequence[tuple[Writer, Commit]]:
        again, self._again = self._again, []
        # Their postponed commits are in this batch: they wait for the next one.
        busy = {writer for writer, _ in again}
        batch: list[tuple[Writer, Commit]] = []
        tasks: set[UUID] = set()
        for writer, postponed in again:
            self._add(batch, tasks, writer, postponed)
        size_bytes = sum(_cost_bytes(commit) for _, commit in batch)
        for writer in list(self._waiting):
            if size_bytes >= BATCH_BYTES or len(batch) >= BATCH_COMMITS:
                break
            if writer in busy:
                continue
            del self._waiting[writer]
            if self._held.has(writer) or self._large.has(writer):
                self._parked.add(writer)
            elif writer.pending_bytes > LARGE_BYTES:
                self._large.add(writer)
            elif (commit := next_commit_of(writer)) is None:
                continue
            elif commit.size_bytes > LARGE_BYTES:  # it folds a long tail
                self._large.add(writer, commit)
            elif self._add(batch, tasks, writer, commit):
                size_bytes += _cost_bytes(commit)
        return batch

    def _add(
        self,
        batch: list[tuple[Writer, Commit]],
        tasks: set[UUID],
        writer: Writer,
        commit: Commit,
    ) -> bool:
        """Add a commit to the batch. If its task has another commit, keep it until that is settled.

        A task may have two writers: an old and a new session, or two uploads. Outcomes are by task,
        so in one batch one writer would get the outcome of the other.
        """
        if self._held.holds(commit.task_id):
            self._held.add(writer, commit)
            return False
        if commit.task_id in tasks:
            self._again.append((writer, commit))
            return False
        tasks.add(commit.task_id)
        batch.append((writer, commit))
        return True

    async def _commit(self, batch: Sequence[tuple[Writer, Commit]]) -> None:
        postponed: list[tuple[Writer, Commit]] = []
        for writer, commit, outcome in await self._batches.write(batch):
            if outcome is Outcome.POSTPONED:
                postponed.append((writer, commit))
            else:
                self._held.add(writer, commit)
        if postponed:
            # Before later commits of their tasks.
            self._again = postponed + self._again
            self._wake.set()

    def _unpark(self, writer: Writer) -> None:
        if writer in self._parked:
            self._parked.discard(writer)
            self.submit(writer)


def _cost_bytes(commit: Commit) -> int:
    return commit.size_bytes + _ROW_COST_BYTES * len(commit.rows)
