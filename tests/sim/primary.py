"""The modelled Postgres: the rows of all tasks, and a primary with some cores."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from tasklogs_server.domain.status import (
    AgentLifecycle,
    AppHealth,
    BuildTransition,
    Facts,
    JobStatus,
)
from tasklogs_server.domain.synced import StoredState
from tasklogs_server.store.log_changes import EntriesChanged
from tasklogs_server.store.log_writes import Outcome
from tasklogs_server.store.records import Commit, EntryRow, LogHead, Task
from tests.sim.costs import Costs
from tests.sim.measures import Measures
from tests.sim.processor import Processor, sleep_until

GENERATION = "1/00000001"
EMPTY = LogHead(0, 0, 0, b"", 0, None, None, generation=GENERATION)

_CREATED = datetime(2026, 1, 1, tzinfo=UTC)
_FACTS = Facts(
    1, BuildTransition.START, JobStatus.SUCCEEDED, AgentLifecycle.READY, AppHealth.HEALTHY
)


@dataclass(slots=True)
class Row:
    """A task's rows."""

    fence: int = 0
    process: UUID | None = None
    serial: int = 0
    head: LogHead = EMPTY
    tail_content: bytes | None = None
    kept: list[EntryRow] | None = None
    """All entries, of tasks that somebody follows; None: only the tail is kept."""
    committed_at: dict[int, float] | None = None
    """When each revision that ends a commit was stored, of tasks that somebody follows."""


class Primary:
    """One Postgres server. Statements wait for a core; a commit then waits for the disk."""

    def __init__(self, costs: Costs, measures: Measures, *, cores: int) -> None:
        self.costs = costs
        self.measures = measures
        self.processor = Processor(cores)
        self.rows: dict[UUID, Row] = {}
        self.connections = 0
        """What all processes together have open."""

    async def statement(self, seconds: float, *, flush: bool = False) -> None:
        """Wait until a statement that takes so long is done, and its answer is back."""
        await asyncio.sleep(self.costs.hop)
        self.measures.counts["statements"] += 1
        done_at = self.processor.reserve(seconds)
        await sleep_until(done_at + (self.costs.flush if flush else 0.0))

    def commit(self, commits: Sequence[Commit]) -> dict[UUID, Outcome]:
        """Write commits as the statement does: fence and base revision must be the stored ones."""
        now = asyncio.get_running_loop().time()
        outcomes: dict[UUID, Outcome] = {}
        for commit in commits:
            row = self.rows[commit.task_id]
            if row.fence != commit.fence:
                outcomes[commit.task_id] = Outcome.FENCED
            elif row.head.revision != commit.base_revision:
                outcomes[commit.task_id] = Outcome.MOVED
            else:
                self._write(row, commit, now)
                outcomes[commit.task_id] = Outcome.COMMITTED
        self.measures.counts["commits"] += len(commits)
        self.measures.counts["batches"] += 1
        return outcomes

    def _write(self, row: Row, commit: Commit, now: float) -> None:
        row.head = commit.head
        if commit.rows:
            row.tail_content = commit.rows[-1].content
        if row.kept is not None and row.committed_at is not None:
            row.kept += commit.rows
            row.committed_at[commit.head.revision] = now

    def state(self, task_id: UUID) -> StoredState:
        """Return what a read finds."""
        row = self.rows[task_id]
        return StoredState(row.fence, row.head.revision, _FACTS.start_build, row.process)

    def task(self, task_id: UUID) -> Task:
        row = self.rows[task_id]
        return Task(
            task_id,
            owner="sim",
            name=f"t{task_id.int}",
            display_name="",
            prompt=None,
            labels=None,
            standalone=False,
            created_at=_CREATED,
            facts=_FACTS,
            agent_connected=row.process is not None,
            fence=row.fence,
            head=row.head,
            session_process=row.process,
        )

    def changes(self, task_id: UUID, revision: int) -> Sequence[EntriesChanged]:
        """Return the entries that changed after a revision, of a task that is followed."""
        row = self.rows[task_id]
        assert row.kept is not None
        changed = [one for one in reversed(row.kept[-64:]) if one.revision > revision]
        if len(changed) == 64:  # further behind: look at all
            changed = [one for one in reversed(row.kept) if one.revision > revision]
        return [
            EntriesChanged(
                one.epoch,
                one.head + one.content,
                one.id,
                one.revision,
                one.content if one is row.kept[-1] else None,
            )
            for one in reversed(changed)
        ]
