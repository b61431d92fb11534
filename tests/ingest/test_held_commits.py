"""I11: commits of held tasks are tried again, and given up, each for itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

from tasklogs_server.bus.local import LocalBus
from tasklogs_server.concurrency.background import background
from tasklogs_server.domain.errors import LogCorrupt
from tasklogs_server.ingest.batches import Batches
from tasklogs_server.ingest.held_commits import HeldCommits
from tasklogs_server.limits.ingest_budget import IngestBudget
from tasklogs_server.store.log_writes import Lane, LogWrites, Outcome
from tasklogs_server.store.records import Commit, LogHead
from tasklogs_server.telemetry.observer import Observer
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until

MIB = 1024 * 1024
BAD, GOOD, OTHER = UUID(int=1), UUID(int=2), UUID(int=3)


@dataclass
class Writes:
    """A store in which heads are locked, or one head cannot be read."""

    locked: Collection[UUID] = ()
    unreadable: UUID | None = None

    async def locked_heads(self, task_ids: Sequence[UUID]) -> Collection[UUID]:
        if self.unreadable in task_ids:
            raise LogCorrupt
        return self.locked

    async def commit(
        self, commits: Sequence[Commit], lane: Lane = Lane.BATCHES
    ) -> Mapping[UUID, Outcome]:
        return {
            one.task_id: Outcome.CORRUPT if one.task_id == self.unreadable else Outcome.COMMITTED
            for one in commits
        }


@dataclass(eq=False)
class Writer:
    """Records what it is told. `on_lost` is called when its commit is lost."""

    on_lost: Callable[[], None] = lambda: None
    told: list[object] = field(default_factory=list)
    pending_bytes: int = 0

    def next_commit(self) -> Commit | None:
        return None

    def committed(self, commit: Commit) -> None:
        self.told.append("committed")

    def lost(self, error: Exception) -> None:
        self.told.append(error)
        self.on_lost()

    def undecided(self) -> None:
        self.told.append("undecided")


@asynccontextmanager
async def holding(writes: Writes, budget: IngestBudget | None = None) -> AsyncIterator[HeldCommits]:
    batches = Batches(cast("LogWrites", writes), LocalBus(), Observer())
    held = HeldCommits(batches, budget, on_settled=lambda _: None)
    async with background(held.run()):
        yield held


def commit_of(task_id: UUID, size_bytes: int = 1) -> Commit:
    head = LogHead(0, 0, 0, b"", 0, None, None)
    return Commit(task_id, 1, 0, head, size_bytes=size_bytes)


async def test_a_head_that_cannot_be_read_keeps_no_other_task_waiting() -> None:
    bad, good = Writer(), Writer()
    async with holding(Writes(unreadable=BAD)) as held:
        held.add(bad, commit_of(BAD))
        held.add(good, commit_of(GOOD))
        await until(lambda: held.tasks == 0)
    assert good.told == ["committed"]
    assert [type(one) for one in bad.told] == [LogCorrupt]


async def test_an_upload_that_is_given_up_is_enough_if_its_bytes_are() -> None:
    """Its bytes are free only when the call that uploads wakes up."""
    budget = IngestBudget(4 * MIB)
    async with holding(Writes(locked={BAD, GOOD, OTHER}), budget) as held:
        stored: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        await budget.acquire(2 * MIB)

        async def upload() -> None:
            await stored
            budget.release(2 * MIB)

        uploading = asyncio.create_task(upload())
        held.add(Writer(lambda: stored.set_result(None)), commit_of(BAD, 2 * MIB))
        sessions = [Writer(lambda: budget.release(MIB)) for _ in range(2)]
        for session, task_id in zip(sessions, (GOOD, OTHER), strict=True):
            await budget.acquire(MIB)
            held.add(session, commit_of(task_id, MIB))
        await asyncio.wait_for(budget.acquire(100), DEADLINE_SECONDS)
        await uploading
        assert not any(session.told for session in sessions)
