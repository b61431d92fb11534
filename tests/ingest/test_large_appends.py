"""Appends with thousands of entries: other calls go on while they are stored."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Sequence
from itertools import pairwise
from uuid import UUID

import pytest

from tasklogs.log.entry import Entry
from tasklogs_server.domain.errors import ProtocolViolation, SessionSuperseded
from tasklogs_server.ingest.group_commit import BATCH_BYTES
from tasklogs_server.store import Store
from tasklogs_server.store.log_writes import Lane
from tasklogs_server.store.records import Commit
from tests.ingest.desk import Desk, entry, grown
from tests.store.logs import new_task

PART = 1000
# The largest append of `tasklogs agent` 0.1.0 has so many.
MOST_OF_AN_AGENT = 49_152


@pytest.fixture
def batches(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> list[Sequence[Commit]]:
    """Return the batches that are committed."""
    written: list[Sequence[Commit]] = []
    commit = desk.store.writes.commit

    async def noted(commits: Sequence[Commit], lane: Lane = Lane.BATCHES) -> object:
        written.append(commits)
        return await commit(commits, lane)

    monkeypatch.setattr(desk.store.writes, "commit", noted)
    return written


def many(count: int, *, first: int = 0) -> list[Entry]:
    return [entry(id_, "") for id_ in range(first, first + count)]


async def test_a_large_append_is_stored_in_small_commits_and_acknowledged_once(
    desk: Desk, task: UUID, batches: list[Sequence[Commit]]
) -> None:
    async with desk.agent(task) as agent:
        await agent.append(many(2 * PART + 500), open_epoch=True)
        await agent.append(tail=grown(2 * PART + 499, 0, "grown"))
        await agent.all_acked()
        acks = {one.sequence for one in agent.heard if hasattr(one, "sequence")}

    assert acks <= {1, 2}
    sizes = [len(commit.rows) for batch in batches for commit in batch]
    assert sum(sizes) >= 2 * PART + 500
    assert max(sizes) <= PART


async def test_no_step_of_the_largest_append_is_long(desk: Desk, task: UUID) -> None:
    turns: list[float] = []

    async def others() -> None:
        while True:
            turns.append(time.thread_time())
            await asyncio.sleep(0)

    gc.collect()
    gc.disable()  # a collection looks at all that the tests have made
    async with desk.agent(task) as agent:
        other_calls = asyncio.create_task(others())
        began = time.thread_time()
        await agent.append(many(MOST_OF_AN_AGENT), open_epoch=True)
        await agent.all_acked()
        took = time.thread_time() - began
        other_calls.cancel()
    gc.enable()

    longest = max(later - earlier for earlier, later in pairwise(turns))
    assert longest < took / 6, f"{longest:.3f} s of {took:.3f} s"


async def test_what_breaks_the_rules_in_a_later_part_ends_the_session(
    desk: Desk, task: UUID
) -> None:
    async with desk.agent(task) as agent:
        with pytest.raises(ProtocolViolation, match="out of order"):
            await agent.append([*many(PART + 1), entry(3)], open_epoch=True)
        assert agent.acked == 0

    async with desk.agent(task) as again:
        assert again.session.welcome.position.entries in (0, PART)


async def test_a_session_that_is_superseded_between_two_parts_stores_no_more(
    desk: Desk, task: UUID, batches: list[Sequence[Commit]]
) -> None:
    async with desk.agent(task) as agent:
        sending = asyncio.create_task(agent.append(many(20 * PART), open_epoch=True))
        while not batches:  # noqa: ASYNC110
            await asyncio.sleep(0)
        async with desk.agent(task) as later:
            with pytest.raises(SessionSuperseded):
                await sending
            stored = later.session.welcome.position.entries
            assert stored % PART == 0
            await later.append(many(1, first=20 * PART), open_epoch=not stored)
            await later.all_acked()


async def test_the_tail_may_be_released_between_two_parts(desk: Desk, task: UUID) -> None:
    async with desk.agent(task) as agent:
        await agent.append([entry(0, "a tail")], open_epoch=True)
        await agent.all_acked()
        releasing = True

        async def release() -> None:
            while releasing:
                agent.session.release_tail()
                await asyncio.sleep(0)

        other = asyncio.create_task(release())
        await agent.append(many(5 * PART, first=1))
        await agent.all_acked()
        releasing = False
        await other

    async with desk.agent(task) as again:
        position = again.session.welcome.position
        assert position.entries == 5 * PART + 1


async def test_a_batch_takes_few_rows_of_all_tasks_together(
    desk: Desk, store: Store, batches: list[Sequence[Commit]]
) -> None:
    tasks = [await new_task(store, f"t{number}") for number in range(8)]

    async def report(task: UUID) -> None:
        async with desk.agent(task) as agent:
            await agent.append(many(3 * PART), open_epoch=True)
            await agent.all_acked()

    await asyncio.gather(*(report(task) for task in tasks))

    rows = [sum(len(commit.rows) for commit in batch) for batch in batches]
    assert max(rows) <= BATCH_BYTES / 4096 + PART


async def test_a_large_append_is_of_the_time_at_which_it_was_received(
    desk: Desk, task: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, received_at = desk.store.writes.commit, desk.clock.now

    async def slow(commits: Sequence[Commit], *lane: Lane) -> object:
        desk.clock.advance(1)
        return await commit(commits, *lane)

    monkeypatch.setattr(desk.store.writes, "commit", slow)
    async with desk.agent(task) as agent:
        await agent.append(many(3 * PART), open_epoch=True)
        await agent.all_acked()
    assert desk.clock.now > received_at
    assert (await desk.store.tasks.get(task)).head.snapshot_at == received_at
