"""Readers share syncs, and each gets one that began after its call (I6)."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import pytest

from tasklogs_server.domain.errors import AgentUnreachable, TaskAppFailed
from tasklogs_server.domain.synced import StoredState, Synced
from tasklogs_server.ingest.sync_table import SyncTable
from tasklogs_server.ingest.syncs import Syncs
from tasklogs_server.store import Store
from tests.fuzz.virtual_time import VirtualTimeLoop
from tests.ingest.desk import NOTHING_KNOWN, Desk, entry
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


async def test_readers_that_one_statement_has_answered_cause_one_sync(
    desk: Desk, task: UUID
) -> None:
    async with desk.agent(task) as agent:
        agent.answers_syncs = True
        for number in range(1, 4):
            readers = [asyncio.create_task(desk.sync(task)) for _ in range(50)]
            assert len(set(await asyncio.gather(*readers))) == 1
            assert len(agent.syncs) == number


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


async def test_a_sync_outlives_the_hurried_reader_that_began_it(desk: Desk, task: UUID) -> None:
    """Otherwise hurried readers would ask the agent again and again, and no sync would end."""
    async with desk.agent(task) as agent:
        hurried = asyncio.create_task(desk.sync(task))
        await agent.until(lambda: len(agent.syncs) == 1)
        patient = asyncio.create_task(desk.sync(task))
        hurried.cancel()
        await asyncio.wait([hurried])
        await turns()
        assert len(agent.syncs) == 1, "one sync is under way, however many readers leave"
        agent.session.sync_done(1)
        await agent.until(lambda: len(agent.syncs) == 2)
        agent.session.sync_done(2)
        await asyncio.wait_for(patient, DEADLINE_SECONDS)


async def test_a_sync_that_a_hurried_reader_began_is_recent_for_the_next_one(
    desk: Desk, task: UUID
) -> None:
    async with desk.agent(task) as agent:
        with pytest.raises(TaskAppFailed):
            await desk.sync(task, time_left=timedelta(seconds=0.05))
        agent.session.sync_done(1)
        await until(lambda: agent.session.syncs.last is not None)
        await desk.sync(task, max_staleness=timedelta(seconds=2))
        assert len(agent.syncs) == 1


async def test_a_sync_without_readers_ends_with_its_session(desk: Desk, task: UUID) -> None:
    async with desk.agent(task) as agent:
        hurried = asyncio.create_task(desk.sync(task))
        await agent.until(lambda: len(agent.syncs) == 1)
        hurried.cancel()
        await asyncio.wait([hurried])
    await until(lambda: not desk.syncs._shared._under_way)


async def test_an_agent_that_comes_again_and_again_does_not_renew_the_limit_of_a_sync(
    store: Store, task: UUID
) -> None:
    async with (
        Desk.open(store, agent_wait=60, sync_timeout=0.3, handshakes=1000) as desk,
        AsyncExitStack() as streams,
    ):
        reading = asyncio.create_task(desk.sync(task))
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not reading.done():
                # It supersedes the one before.
                agent = await streams.enter_async_context(desk.agent(task))
                await until(lambda one=agent: bool(one.syncs) or reading.done())  # type: ignore[misc]
        with pytest.raises(TaskAppFailed) as failed:
            await reading
    assert "0.3 s" in failed.value.reason


class FlappingSessions:
    """Sessions of an agent that is away for `away_seconds`, then connected for `there_seconds`.

    It answers nothing.
    """

    def __init__(self, away_seconds: float, there_seconds: float) -> None:
        self._away_seconds = away_seconds
        self._there_seconds = there_seconds
        self._open: FlappingSessions | None = None
        self.syncs = SyncTable()

    def find(self, task_id: UUID) -> FlappingSessions | None:
        return self._open

    def is_outdated_by(self, stored: StoredState) -> bool:
        return False

    async def wait_for(self, task_id: UUID, timeout: timedelta) -> FlappingSessions:
        await asyncio.sleep(min(self._away_seconds, timeout.total_seconds()))
        if timeout.total_seconds() <= self._away_seconds:
            raise AgentUnreachable(timeout, timedelta(seconds=1))
        self._open = self
        return self

    async def sync(self, timeout: timedelta) -> Synced:
        await asyncio.sleep(self._there_seconds)
        self._open = None
        raise AgentUnreachable(timedelta(0), timedelta(seconds=1))


@pytest.mark.parametrize(
    ("away_seconds", "there_seconds", "ends_after", "error"),
    [
        (0.0, 4.0, 10.0, TaskAppFailed),
        (0.5, 3.0, 12.0, TaskAppFailed),
        (1.0, 0.1, 3.2, AgentUnreachable),
        (1.0, 4.0, 11.0, AgentUnreachable),
    ],
)
def test_waits_and_syncs_of_one_read_have_one_limit_each(
    away_seconds: float, there_seconds: float, ends_after: float, error: type[Exception]
) -> None:
    async def read() -> float:
        flapping = cast("Any", FlappingSessions(away_seconds, there_seconds))
        syncs = Syncs(flapping, agent_wait=timedelta(seconds=3), sync_timeout=timedelta(seconds=10))
        request = syncs.request(UUID(int=1), max_staleness=None, time_left=None)
        with pytest.raises(error):
            await request.done(NOTHING_KNOWN)
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert runner.run(read()) == pytest.approx(ends_after)
