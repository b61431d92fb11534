"""Sessions in the store: whether an agent is connected, and when a lease is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from tasklogs_server.domain.reports import connect_standalone
from tasklogs_server.domain.status import AgentLifecycle, TaskStatus, derive
from tasklogs_server.store import Store
from tests.store.logs import Connection, new_task
from tests.support.fixtures.conditions import until

LEASE = timedelta(seconds=30)


@pytest.fixture
async def held(store: Store) -> UUID:
    """A standalone task whose session this process holds."""
    task_id = await new_task(store, standalone=True)
    await open_session(store, task_id, 1)
    return task_id


async def open_session(store: Store, task_id: UUID, serial: int) -> None:
    await store.sessions.open_session(
        task_id, serial=serial, admit=lambda _: None, connect=connect_standalone
    )


async def is_off(store: Store, task_id: UUID) -> bool:
    return (await store.tasks.get(task_id)).facts.lifecycle is AgentLifecycle.OFF


async def age(sql: Connection, table: str, column: str, by: timedelta) -> None:
    await sql.execute(f"UPDATE {table} SET {column} = {column} - $1::interval", by)


@asynccontextmanager
async def other_process(database: str) -> AsyncIterator[Store]:
    """Run another server on the same database, as it is after a restart."""
    store = await Store.open(database, read_connections=1, lease=LEASE)
    try:
        yield store
    finally:
        await store.close()


async def test_the_process_that_holds_a_session_needs_no_heartbeat(
    store: Store, held: UUID, sql: Connection
) -> None:
    await age(sql, "processes", "heartbeat_at", timedelta(hours=1))
    assert (await store.tasks.get(held)).agent_connected
    assert not await is_off(store, held)


async def test_another_process_relies_on_the_heartbeat(
    database: str, store: Store, held: UUID, sql: Connection
) -> None:
    await age(sql, "processes", "up_since", timedelta(hours=1))
    async with other_process(database) as other:
        assert (await other.tasks.get(held)).agent_connected
        await age(sql, "processes", "heartbeat_at", timedelta(seconds=16))
        assert not (await other.tasks.get(held)).agent_connected
        assert not await is_off(other, held)
        await age(sql, "processes", "heartbeat_at", timedelta(seconds=15))
        assert await is_off(other, held)
        heard: list[bool] = []

        async def hear(works: bool) -> None:
            heard.append(works)

        watching = asyncio.create_task(store.watch(hear), name="a watch of the store")
        await until(lambda: bool(heard))
        assert (await other.tasks.get(held)).agent_connected
        watching.cancel()
        await asyncio.wait([watching])


async def test_the_lease_runs_from_the_loss(store: Store, held: UUID, sql: Connection) -> None:
    # This server has been up for long.
    store.tasks._lease_terms = store.tasks._lease_terms._replace(
        up_since=store.tasks._lease_terms.up_since - timedelta(hours=1)
    )
    await store.sessions.lose_sessions([1])
    task = await store.tasks.get(held)
    assert not task.agent_connected
    assert derive(task.facts).status is not TaskStatus.UNKNOWN
    await age(sql, "tasks", "session_lost_at", timedelta(seconds=29))
    assert not await is_off(store, held)
    await age(sql, "tasks", "session_lost_at", timedelta(seconds=2))
    assert await is_off(store, held)
    assert derive((await store.tasks.get(held)).facts).status is TaskStatus.UNKNOWN


async def test_a_loss_that_arrives_late_does_not_mark_a_later_session(
    store: Store, held: UUID
) -> None:
    await open_session(store, held, 2)
    await store.sessions.lose_sessions([1])
    assert (await store.tasks.get(held)).agent_connected


async def test_a_process_asks_for_its_own_open_sessions_and_marks_no_other(
    database: str, store: Store, held: UUID
) -> None:
    assert await store.sessions.open_serials(9, but_for=[7]) == [1]
    assert await store.sessions.open_serials(9, but_for=[7, 1]) == []
    assert await store.sessions.open_serials(0, but_for=[]) == []
    async with other_process(database) as other:
        assert await other.sessions.open_serials(9, but_for=[]) == []
        await other.sessions.lose_sessions([1])
        assert (await store.tasks.get(held)).agent_connected
    await store.sessions.lose_sessions([1])
    assert await store.sessions.open_serials(9, but_for=[]) == []


async def test_a_locked_row_is_returned_and_delays_no_other_task(
    store: Store, held: UUID, sql: Connection
) -> None:
    other = await new_task(store)
    await open_session(store, other, 2)
    async with sql.transaction():
        await sql.execute("SELECT FROM tasks WHERE task_id = $1 FOR UPDATE", held)
        losing = store.sessions.lose_sessions([1, 2])
        assert await asyncio.wait_for(losing, 1) == {1}
        assert not (await store.tasks.get(other)).agent_connected
    assert (await store.tasks.get(held)).agent_connected
    assert await store.sessions.lose_sessions([1, 2]) == set()
    assert not (await store.tasks.get(held)).agent_connected


async def test_a_loss_that_was_refused_is_tried_again_less_and_less_often(
    store: Store, held: UUID, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(store.sessions, "_clock", lambda: now)
    await sql.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '23514'; END $$;
        CREATE TRIGGER refuse BEFORE UPDATE ON tasks FOR EACH ROW EXECUTE FUNCTION refuse()""")
    tried: list[float] = []
    with capture_logs() as events:
        while now < 3600:
            if await store.sessions.open_serials(9, but_for=[]):
                await store.sessions.lose_sessions([1])
                tried.append(now)
            now += 5
    assert 5 <= len(tried) <= 30
    assert tried[1] - tried[0] < tried[-1] - tried[-2] <= 305
    assert [one["event"] for one in events] == ["store.row_refused"]
    await sql.execute("DROP TRIGGER refuse ON tasks")
    now += 305
    assert await store.sessions.open_serials(9, but_for=[]) == [1]
    await store.sessions.lose_sessions([1])
    assert not (await store.tasks.get(held)).agent_connected
    assert not store.sessions._refused


async def test_a_loss_keeps_the_time_of_its_first_mark(
    store: Store, held: UUID, sql: Connection
) -> None:
    await store.sessions.lose_sessions([1])
    lost_at = await sql.fetchval("SELECT session_lost_at FROM tasks")
    await store.sessions.lose_sessions([1])
    assert await sql.fetchval("SELECT session_lost_at FROM tasks") == lost_at


async def test_time_without_any_server_does_not_count(
    database: str, store: Store, held: UUID, sql: Connection
) -> None:
    await store.close()
    await age(sql, "processes", "heartbeat_at", timedelta(hours=1))  # crashed an hour ago
    async with other_process(database) as after_the_gap:
        assert not await is_off(after_the_gap, held)


async def test_a_server_that_joins_another_shares_its_uptime(
    database: str, store: Store, held: UUID, sql: Connection
) -> None:
    await store.sessions.lose_sessions([1])
    await age(sql, "processes", "up_since", timedelta(hours=1))
    await age(sql, "tasks", "session_lost_at", timedelta(seconds=31))
    async with other_process(database) as joined:  # the first one's heartbeat is fresh: no gap
        assert await is_off(joined, held)


async def test_a_task_with_an_orchestrator_has_no_lease(store: Store, sql: Connection) -> None:
    task_id = await new_task(store)
    await open_session(store, task_id, 1)
    await store.sessions.lose_sessions([1])
    await age(sql, "tasks", "session_lost_at", timedelta(hours=1))
    assert not await is_off(store, task_id)


async def test_a_new_session_ends_the_loss(store: Store, held: UUID, sql: Connection) -> None:
    await store.sessions.lose_sessions([1])
    await open_session(store, held, 2)
    assert (await store.tasks.get(held)).agent_connected


async def test_an_old_process_is_forgotten_and_its_tasks_are_not_connected(
    database: str, store: Store, held: UUID, sql: Connection
) -> None:
    await store.close()
    await age(sql, "processes", "heartbeat_at", timedelta(days=2))
    async with other_process(database) as later:
        assert await sql.fetchval("SELECT count(*) FROM processes") == 1
        assert not (await later.tasks.get(held)).agent_connected


@pytest.mark.parametrize("was_noted", [True, False], ids=["now", "earlier"])
async def test_a_lease_that_is_over_stays_over_when_the_process_is_forgotten(
    database: str, store: Store, held: UUID, sql: Connection, was_noted: bool
) -> None:
    await age(sql, "processes", "heartbeat_at", timedelta(days=2))
    async with other_process(database):
        if not was_noted:
            await sql.execute("UPDATE tasks SET session_lost_at = NULL")
        await age(sql, "tasks", "created_at", timedelta(days=2))
        await age(sql, "processes", "up_since", timedelta(days=1))
    async with other_process(database) as last:
        assert await sql.fetchval("SELECT count(*) FROM processes") == 2
        assert not (await last.tasks.get(held)).agent_connected
        assert await is_off(last, held)
