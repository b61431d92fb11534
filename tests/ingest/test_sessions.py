"""Sessions: how they begin and end, and how a later one supersedes an earlier one."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from tasklogs_server.domain.errors import (
    AgentUnreachable,
    LimitExceeded,
    ServerDraining,
    SessionSuperseded,
    StaleReport,
    StoreUnavailable,
    TaskNotFound,
    Unauthenticated,
)
from tasklogs_server.domain.status import (
    AgentLifecycle,
    AppHealth,
    BuildTransition,
    Facts,
    JobStatus,
    TaskStatus,
    derive,
)
from tasklogs_server.ingest.messages import (
    AgentState,
    Drain,
    GoodbyeReason,
    Hello,
    ReportState,
)
from tasklogs_server.store import Store
from tests.ingest.desk import HELLO, Desk, entry, grown
from tests.store.logs import Connection, new_task, waits_for_a_lock
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until
from tests.support.fixtures.postgres import PostgresServer

SECOND = timedelta(seconds=1)
READY = AgentState(AgentLifecycle.READY, AppHealth.HEALTHY)


def build(number: int, transition: BuildTransition = BuildTransition.START) -> Facts:
    return Facts(number, transition, JobStatus.SUCCEEDED, None, None)


async def connected(store: Store, task_id: UUID) -> bool:
    return (await store.tasks.get(task_id)).agent_connected


async def test_a_stream_ends_with_its_reason_even_if_a_commit_finds_the_raised_fence_first(
    desk: Desk, task: UUID
) -> None:
    why = Unauthenticated("rotated")
    async with desk.agent(task) as agent:
        with desk.sessions.ending(task, why):
            await desk.store.tasks.rotate_token(task, b"another")
            await agent.append([entry(0, "a")], open_epoch=True)  # finds the fence raised
            await asyncio.wait_for(agent.has_ended.wait(), DEADLINE_SECONDS)
        assert agent.error is why
    async with desk.agent(task) as agent:
        with desk.sessions.ending(task, why):
            await desk.store.tasks.rotate_token(task, b"another")
        await asyncio.wait_for(agent.has_ended.wait(), DEADLINE_SECONDS)
        assert agent.error is why


async def test_a_stream_that_could_not_be_ended_gets_the_reason_of_its_later_end(
    desk: Desk, task: UUID
) -> None:
    async with desk.agent(task) as agent:
        with pytest.raises(StoreUnavailable), desk.sessions.ending(task, Unauthenticated("no")):
            raise StoreUnavailable(timedelta(seconds=1))
        await desk.store.tasks.rotate_token(task, b"another")
        await agent.append([entry(0, "a")], open_epoch=True)
        await asyncio.wait_for(agent.has_ended.wait(), DEADLINE_SECONDS)
        assert isinstance(agent.error, SessionSuperseded)


async def test_a_second_stream_of_a_task_ends_the_first(desk: Desk, task: UUID) -> None:
    async with desk.agent(task) as first:
        await first.append([entry(0, "a")], open_epoch=True)
        await first.all_acked()
        async with desk.agent(task) as second:
            await asyncio.wait_for(first.has_ended.wait(), DEADLINE_SECONDS)
            assert isinstance(first.error, SessionSuperseded)
            assert second.session.fence > first.session.fence
            assert second.session.welcome.position.entries == 1
            await second.append([entry(1, "b")])
            await second.all_acked()
    assert not await connected(desk.store, task)


async def test_the_end_of_a_superseded_stream_does_not_mark_the_new_one_as_lost(
    desk: Desk, task: UUID
) -> None:
    old = desk.agent(task)
    await old.__aenter__()
    async with desk.agent(task) as new:
        await old.__aexit__(None, None, None)
        assert desk.sessions.find(task) is new.session
        assert await connected(desk.store, task)


async def test_of_two_crossing_handshakes_the_higher_fence_wins(desk: Desk, task: UUID) -> None:
    open_session = desk.store.sessions.open_session
    opened, go_on = asyncio.Event(), asyncio.Event()

    async def slow(*args: object, **kwargs: object) -> object:
        opening = await open_session(*args, **kwargs)  # type: ignore[arg-type]
        if not opened.is_set():
            opened.set()
            await go_on.wait()
        return opening

    desk.store.sessions.open_session = slow  # type: ignore[method-assign, assignment]

    async def connect_slowly() -> Exception | None:
        async with desk.agent(task) as agent:
            await agent.has_ended.wait()
            return agent.error

    crossing = asyncio.create_task(connect_slowly())
    await opened.wait()
    async with desk.agent(task) as agent:
        go_on.set()
        assert isinstance(await asyncio.wait_for(crossing, DEADLINE_SECONDS), SessionSuperseded)
        assert desk.sessions.find(task) is agent.session
        await agent.append([entry(0)], open_epoch=True)
        await agent.all_acked()


async def test_an_agent_that_leaves_during_its_handshake_does_not_stay_connected(
    desk: Desk, task: UUID, sql: Connection
) -> None:
    async def connect() -> None:
        async with desk.agent(task):
            pytest.fail("it left before")

    async with sql.transaction():
        await sql.execute("SELECT FROM log_heads FOR UPDATE")
        connecting = asyncio.create_task(connect())
        await until(lambda: waits_for_a_lock(sql))
        connecting.cancel()
        await asyncio.wait([connecting], timeout=0.01)
    await asyncio.wait([connecting])
    assert connecting.cancelled()
    await desk.sessions.tick()
    assert not await connected(desk.store, task)
    assert desk.sessions.find(task) is None


async def test_readers_that_wait_for_an_agent_get_its_session(desk: Desk, task: UUID) -> None:
    waiting = [asyncio.create_task(desk.sessions.wait_for(task, 10 * SECOND)) for _ in range(3)]
    await asyncio.wait(waiting, timeout=0.02)
    async with desk.agent(task) as agent:
        assert set(await asyncio.gather(*waiting)) == {agent.session}
    assert not desk.sessions._waiters


async def test_waiting_for_an_agent_that_does_not_come_ends_and_leaves_nothing(
    desk: Desk, task: UUID
) -> None:
    with pytest.raises(AgentUnreachable):
        await desk.sessions.wait_for(task, SECOND / 50)
    leaving = asyncio.create_task(desk.sessions.wait_for(task, SECOND * 10))
    await asyncio.wait([leaving], timeout=0.02)
    leaving.cancel()
    await asyncio.wait([leaving])
    assert not desk.sessions._waiters


async def test_an_agent_of_an_older_build_is_refused_only_after_a_newer_start(
    desk: Desk, task: UUID
) -> None:
    first = replace(HELLO, build_number=1)
    await desk.store.tasks.change_facts(task, lambda _: build(1))
    await desk.store.tasks.change_facts(task, lambda _: build(2, BuildTransition.STOP))
    async with desk.agent(task, first):
        pass  # during a stop the old workspace may still append
    await desk.store.tasks.change_facts(task, lambda _: build(3))
    with pytest.raises(StaleReport):
        await desk.sessions.connect(task, first).__aenter__()


async def test_a_newer_start_ends_the_session_of_an_older_build(desk: Desk, task: UUID) -> None:
    async with desk.agent(task, replace(HELLO, build_number=1)) as agent:
        desk.sessions.build_reported(task, build(1))
        desk.sessions.build_reported(task, build(2, BuildTransition.STOP))
        await agent.until(lambda: ReportState() in agent.heard)
        assert agent.session.is_open
        desk.sessions.build_reported(task, build(2))
        await asyncio.wait_for(agent.has_ended.wait(), DEADLINE_SECONDS)
        assert isinstance(agent.error, StaleReport)


async def test_an_agent_without_a_build_number_stays_and_reports_its_state_for_a_new_build(
    desk: Desk, task: UUID
) -> None:
    async with desk.agent(task) as agent:
        for number in (1, 2, 3):
            facts = build(number)
            await desk.store.tasks.change_facts(task, lambda _, facts=facts: facts)  # type: ignore[misc]
            desk.sessions.build_reported(task, facts)
            await agent.until(lambda n=number: agent.heard.count(ReportState()) == n)  # type: ignore[misc]
            await desk.sessions.report(agent.session, READY)
            task_now = await desk.store.tasks.get(task)
            assert derive(task_now.facts).status is TaskStatus.ACTIVE
        assert agent.session.is_open


async def test_a_report_for_a_build_that_is_not_the_latest_changes_nothing(
    desk: Desk, task: UUID
) -> None:
    await desk.store.tasks.change_facts(task, lambda _: build(1))
    async with desk.agent(task, Hello("t", "t", 1)) as agent:
        await desk.store.tasks.change_facts(task, lambda _: build(2, BuildTransition.STOP))
        await desk.sessions.report(agent.session, READY)
        assert (await desk.store.tasks.get(task)).facts.lifecycle is None


async def test_handshakes_above_the_bound_wait_and_are_then_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_session = store.sessions.open_session
    is_open, go_on = asyncio.Event(), asyncio.Event()

    async def slow(*args: object, **kwargs: object) -> object:
        is_open.set()
        await go_on.wait()
        return await open_session(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(store.sessions, "open_session", slow)
    tasks = [await new_task(store) for _ in range(3)]
    async with Desk.open(store, handshakes=1, max_wait=SECOND / 2) as desk:

        async def connect(task_id: UUID) -> bool:
            async with desk.agent(task_id):
                return True

        first = asyncio.create_task(connect(tasks[0]))
        await is_open.wait()
        with pytest.raises(LimitExceeded) as refused:
            await connect(tasks[1])
        assert refused.value.retry_after is not None
        monkeypatch.setattr(desk.sessions._handshakes, "_max_wait_seconds", DEADLINE_SECONDS)
        in_line = asyncio.create_task(connect(tasks[1]))
        await asyncio.wait([in_line], timeout=0.02)
        go_on.set()
        assert await first
        assert await in_line
        assert await connect(tasks[2])


async def test_a_drain_asks_all_to_leave_and_refuses_new_sessions(
    desk: Desk, task: UUID, sql: Connection
) -> None:
    late = await new_task(desk.store)

    async def connect_late() -> list[object]:
        async with desk.agent(late) as agent:
            await agent.until(lambda: bool(agent.heard))
            return list(agent.heard)

    async with desk.agent(task) as agent:
        async with sql.transaction():
            await sql.execute("SELECT FROM log_heads WHERE task_id = $1 FOR UPDATE", late)
            crossing = asyncio.create_task(connect_late())
            await until(lambda: waits_for_a_lock(sql))
            desk.sessions.drain(SECOND)
        await agent.until(lambda: Drain(SECOND) in agent.heard)
        # A session whose handshake was under way gets Drain, too.
        assert isinstance((await asyncio.wait_for(crossing, DEADLINE_SECONDS))[0], Drain)
        with pytest.raises(ServerDraining):
            await desk.sessions.connect(late, HELLO).__aenter__()
        with pytest.raises(ServerDraining):
            await desk.sessions.wait_for(late, SECOND)


async def test_a_goodbye_folds_the_tail_and_writes_the_confirmed_time(
    desk: Desk, task: UUID, sql: Connection
) -> None:
    async with desk.agent(task) as agent:
        await agent.append([entry(0, "a")], open_epoch=True)
        await agent.append(tail=grown(0, 1, "b"))
        await agent.all_acked()
        await agent.append(tail=grown(0, 2, "c"))
        await agent.all_acked()
        assert await sql.fetchval("SELECT count(*) FROM log_tail_parts") > 0
        agent.session.release_tail()
        agent.answers_syncs = True
        time = desk.clock.advance(5)
        await agent.session.sync(SECOND)
        await desk.sessions.goodbye(agent.session, GoodbyeReason.STOPPING)
    assert await sql.fetchval("SELECT count(*) FROM log_tail_parts") == 0
    assert await sql.fetchval("SELECT content FROM log_entries") == b"abc"
    assert (await desk.store.tasks.get(task)).head.snapshot_at == time
    assert not await connected(desk.store, task)


async def test_a_pausing_goodbye_pauses_a_standalone_task_and_a_stopping_one_does_not(
    desk: Desk,
) -> None:
    task_id = await new_task(desk.store, standalone=True)
    for reason, status in (
        (GoodbyeReason.STOPPING, TaskStatus.ACTIVE),
        (GoodbyeReason.PAUSING, TaskStatus.PAUSED),
    ):
        async with desk.agent(task_id) as agent:
            await desk.sessions.report(agent.session, READY)
            await desk.sessions.goodbye(agent.session, reason)
        assert derive((await desk.store.tasks.get(task_id)).facts).status is status


async def test_a_confirmed_time_never_moves_back_when_another_session_connects(
    desk: Desk, task: UUID
) -> None:
    async def time() -> object:
        known = (
            desk.write_behind.confirmed_at(task, 100),
            (await desk.store.tasks.get(task)).head.snapshot_at,
        )
        return max((one for one in known if one is not None), default=None)

    async with desk.agent(task) as first:
        first.answers_syncs = True
        await first.append([entry(0)], open_epoch=True)
        await first.all_acked()
        later = desk.clock.advance(3)
        await first.session.sync(SECOND)
        assert await time() == later
        async with desk.agent(task):  # raises the fence before the time is written
            await desk.sessions.tick()
            assert await time() == later
    await desk.sessions.tick()
    assert await time() == later
    assert desk.write_behind.confirmed_at(task, 100) is None


async def test_a_loss_while_the_store_is_away_is_marked_when_it_is_back(
    postgres_server: PostgresServer,
) -> None:
    store = await Store.open(postgres_server.dsn(), read_connections=2, lease=timedelta(seconds=30))
    task_id = await new_task(store)
    async with Desk.open(store) as desk:
        async with desk.agent(task_id):
            await asyncio.to_thread(postgres_server.stop)
        await desk.sessions.tick()
        await asyncio.to_thread(postgres_server.start)
        assert await connected(store, task_id)
        await desk.sessions.tick()
        assert not await connected(store, task_id)
    await store.close()


async def test_a_deleted_tasks_session_ends_and_it_cannot_connect(desk: Desk, task: UUID) -> None:
    async with desk.agent(task) as agent:
        await desk.store.tasks.delete(task)
        await agent.append([entry(0)], open_epoch=True)
        await asyncio.wait_for(agent.has_ended.wait(), DEADLINE_SECONDS)
        assert isinstance(agent.error, TaskNotFound)
    with pytest.raises(TaskNotFound):
        await desk.sessions.connect(task, HELLO).__aenter__()


async def test_idle_tails_are_released_and_busy_ones_are_not(desk: Desk, task: UUID) -> None:
    async with desk.agent(task) as agent:
        await agent.append([entry(0, "abc")], open_epoch=True)
        await agent.all_acked()
        desk.tails.release()
        assert agent.session.tail_bytes == 3
        desk.clock.set_(desk.clock.now + timedelta(hours=1))
        desk.tails.release()
        assert agent.session.tail_bytes == 3
        desk.clock.set_(desk.clock.now - timedelta(hours=2))
        desk.clock.advance(31)
        desk.tails.release()
        assert agent.session.tail_bytes == 0
        await agent.append(tail=grown(0, 3, "d"))
        await agent.all_acked()


async def test_a_handshake_fails_at_once_while_the_store_is_away(
    postgres_server: PostgresServer,
) -> None:
    store = await Store.open(postgres_server.dsn(), read_connections=2, lease=timedelta(seconds=30))
    task_id = await new_task(store)
    await asyncio.to_thread(postgres_server.stop)
    async with Desk.open(store) as desk:
        with pytest.raises(StoreUnavailable):
            await desk.sessions.connect(task_id, HELLO).__aenter__()
    await store.close()


async def test_streams_continue_while_readers_use_all_connections(database: str) -> None:
    store = await Store.open(
        database,
        read_connections=1,
        lease=timedelta(seconds=30),
        acquire_timeout=timedelta(milliseconds=50),
    )
    task_id = await new_task(store)
    async with Desk.open(store) as desk, desk.agent(task_id) as agent:
        await agent.append([entry(0, "a")], open_epoch=True)
        await agent.all_acked()
        desk.clock.advance(60)
        desk.tails.release()  # the tail must be read again
        async with store.reads._connections.use():
            growing = asyncio.create_task(agent.append(tail=grown(0, 1, "b")))
            reporting = asyncio.create_task(desk.sessions.report(agent.session, READY))
            done, _ = await asyncio.wait({growing, reporting}, timeout=0.3)
            assert not done
        await asyncio.wait_for(asyncio.gather(growing, reporting), DEADLINE_SECONDS)
        await agent.all_acked()
    await store.close()
