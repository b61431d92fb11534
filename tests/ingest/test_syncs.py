"""Readers share syncs, and each gets one that began after its call (I6)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from tasklogs_server.domain.errors import AgentUnreachable, TaskAppFailed
from tasklogs_server.domain.synced import Synced
from tasklogs_server.store import Store
from tests.ingest.desk import Desk, entry
from tests.store.logs import new_task
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_fifty_readers_cause_two_syncs_at_most(desk: Desk, task: UUID) -> None:
    async with desk.agent(task) as agent:

        def read() -> asyncio.Task[Synced]:
            return asyncio.create_task(desk.sync(task))

        first = read()
        await agent.until(lambda: len(agent.syncs) == 1)
        others = [read() for _ in range(50)]
        await turns()
        assert len(agent.syncs) == 1
        agent.session.sync_done(1)
        await first
        await agent.until(lambda: len(agent.syncs) == 2)
        assert not any(one.done() for one in others)
        agent.session.sync_done(2)
        await asyncio.gather(*others)
        await turns()
        assert len(agent.syncs) == 2


async def test_a_reader_that_comes_during_a_sync_sees_what_was_shown_when_it_came(
    desk: Desk, task: UUID
) -> None:
    """I6: the sync under way may have looked at the task app before the reader came."""
    async with desk.agent(task) as agent:
        early = asyncio.create_task(desk.sync(task))
        await agent.until(lambda: len(agent.syncs) == 1)
        came_at = desk.clock.advance(1)
        late = asyncio.create_task(desk.sync(task))
        await turns()
        agent.session.sync_done(1)
        assert (await early).began_at < came_at
        await agent.until(lambda: len(agent.syncs) == 2)
        await agent.append([entry(0, "shown meanwhile")], open_epoch=True)
        agent.session.sync_done(2)
        assert (await late).began_at >= came_at
        assert (await desk.store.tasks.get(task)).head.entries == 1


async def test_a_recent_sync_is_enough_where_the_reader_allows_it(desk: Desk, task: UUID) -> None:
    async with desk.agent(task) as agent:
        agent.answers_syncs = True
        at = await desk.sync(task)
        desk.clock.advance(2)
        recent = timedelta(seconds=2)
        assert await desk.sync(task, max_staleness=recent) == at
        assert len(agent.syncs) == 1
        desk.clock.advance(0.001)
        assert (await desk.sync(task, max_staleness=recent)).began_at > at.began_at
        assert len(agent.syncs) == 2
        await desk.sync(task)
        assert len(agent.syncs) == 3, "a reader without max_staleness gets a sync of its own"


@pytest.mark.parametrize("hours", [-6, 6])
async def test_a_clock_that_jumps_makes_no_sync_recent_and_none_old(
    desk: Desk, task: UUID, hours: int
) -> None:
    async with desk.agent(task) as agent:
        agent.answers_syncs = True
        at = await desk.sync(task)
        desk.clock.set_(at.began_at + timedelta(hours=hours))
        recent = timedelta(seconds=2)
        assert await desk.sync(task, max_staleness=recent) == at
        desk.clock.advance(3)
        await desk.sync(task, max_staleness=recent)
        assert len(agent.syncs) == 2


async def test_without_an_agent_a_reader_waits_for_one(desk: Desk, task: UUID) -> None:
    reading = asyncio.create_task(desk.sync(task))
    await turns()
    async with desk.agent(task) as agent:
        agent.answers_syncs = True
        assert (await asyncio.wait_for(reading, DEADLINE_SECONDS)).began_at == desk.clock.now


async def test_if_the_agent_disconnects_during_a_sync_the_reader_waits_again(
    desk: Desk, task: UUID
) -> None:
    async with desk.agent(task) as agent:
        reading = asyncio.create_task(desk.sync(task))
        await agent.until(lambda: len(agent.syncs) == 1)
    await turns()
    assert not reading.done()
    async with desk.agent(task) as agent:
        agent.answers_syncs = True
        assert (await asyncio.wait_for(reading, DEADLINE_SECONDS)).began_at == desk.clock.now


async def test_if_no_agent_connects_in_time_it_is_unreachable(store: Store, task: UUID) -> None:
    async with Desk.open(store, agent_wait=0.05) as desk:
        with pytest.raises(AgentUnreachable):
            await desk.sync(task)
    async with Desk.open(store, agent_wait=60) as desk:
        with pytest.raises(AgentUnreachable) as unreachable:
            await desk.sync(task, time_left=timedelta(seconds=0.05))
    assert unreachable.value.waited == timedelta(seconds=0.05)


async def test_a_task_app_that_does_not_answer_in_time_has_failed(store: Store, task: UUID) -> None:
    async with Desk.open(store, sync_timeout=0.05) as desk, desk.agent(task):
        with pytest.raises(TaskAppFailed):
            await desk.sync(task)


async def test_a_readers_own_deadline_ends_its_wait_and_not_the_others(
    desk: Desk, task: UUID
) -> None:
    async with desk.agent(task) as agent:
        hurried = asyncio.create_task(desk.sync(task, time_left=timedelta(seconds=0.1)))
        patient = asyncio.create_task(desk.sync(task))
        await agent.until(lambda: len(agent.syncs) == 1)
        with pytest.raises(TaskAppFailed):
            await hurried
        agent.answers_syncs = True
        agent.session.sync_done(1)
        await asyncio.wait_for(patient, DEADLINE_SECONDS)


async def test_a_failed_sync_does_not_fail_the_next_reader(desk: Desk, task: UUID) -> None:
    async with desk.agent(task) as agent:
        failing = asyncio.create_task(desk.sync(task))
        await agent.until(lambda: len(agent.syncs) == 1)
        agent.session.sync_failed(1, "HTTP 500")
        with pytest.raises(TaskAppFailed):
            await failing
        agent.answers_syncs = True
        await desk.sync(task)


async def test_a_task_whose_app_hangs_delays_no_other_task(desk: Desk, task: UUID) -> None:
    other = await new_task(desk.store)
    async with desk.agent(task) as hanging, desk.agent(other) as agent:
        agent.answers_syncs = True
        stuck = asyncio.create_task(desk.sync(task))
        await hanging.until(lambda: len(hanging.syncs) == 1)
        await asyncio.wait_for(desk.sync(other), DEADLINE_SECONDS)
        stuck.cancel()
        await asyncio.wait([stuck])
    await until(lambda: not desk.syncs._shared._under_way)
