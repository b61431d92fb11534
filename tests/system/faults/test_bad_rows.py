"""One session in a batch of many cannot be stored. The others are stored and acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from tasklogs_server.domain.errors import (
    CommitRefused,
    LogCorrupt,
    SessionSuperseded,
    StoreUnavailable,
    TaskLogsError,
    TaskNotFound,
)
from tasklogs_server.ingest import sessions
from tasklogs_server.ingest.messages import GoodbyeReason
from tasklogs_server.store import Store
from tests.ingest.desk import Desk, DeskAgent, entry
from tests.store.logs import Connection, Log, new_task
from tests.support.fixtures.conditions import DEADLINE_SECONDS


async def refuse(sql: Connection, task: UUID, code: str) -> None:
    """Make Postgres fail with this SQLSTATE for every insert of a row of the task."""
    await sql.execute(f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'a secret' USING ERRCODE = '{code}'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON log_entries FOR EACH ROW
        WHEN (NEW.task_id = '{task}') EXECUTE FUNCTION refuse()""")


def refused(code: str) -> Callable[[Store, Connection, UUID], Awaitable[object]]:
    return lambda _, sql, task: refuse(sql, task, code)


async def elsewhere(store: Store, _: Connection, task: UUID) -> None:
    await Log.open(store, task)  # a later session on another server


async def deleted(store: Store, _: Connection, task: UUID) -> None:
    await store.tasks.delete(task)


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        pytest.param(refused("23514"), CommitRefused, id="a check fails"),
        pytest.param(refused("XX000"), CommitRefused, id="Postgres has an internal error"),
        pytest.param(refused("58030"), CommitRefused, id="a block cannot be read"),
        pytest.param(refused("58P01"), CommitRefused, id="a file is gone"),
        pytest.param(refused("XX001"), LogCorrupt, id="a row is corrupt"),
        pytest.param(refused("XX002"), LogCorrupt, id="an index is corrupt"),
        pytest.param(elsewhere, SessionSuperseded, id="its fence is gone"),
        pytest.param(deleted, TaskNotFound, id="its task is gone"),
    ],
)
async def test_only_the_session_that_cannot_be_stored_ends(
    store: Store,
    sql: Connection,
    spoil: Callable[[Store, Connection, UUID], Awaitable[object]],
    error: type[TaskLogsError],
) -> None:
    tasks = [await new_task(store) for _ in range(4)]
    async with Desk.open(store) as desk, AsyncExitStack() as stack:
        agents = [await stack.enter_async_context(desk.agent(task)) for task in tasks]
        for agent in agents:
            await agent.append([entry(0)], open_epoch=True)
            await agent.all_acked()
        bad = agents.pop(2)
        await spoil(store, sql, bad.session.task_id)
        for agent in (bad, *agents):
            # These appends wait for nothing, so the commits are in one batch.
            await agent.append([entry(1)])
        for agent in agents:
            await agent.all_acked()
        await asyncio.wait_for(bad.has_ended.wait(), DEADLINE_SECONDS)
        assert isinstance(bad.error, error)
        assert bad.acked == 1
        for agent in agents:
            await agent.append([entry(2, "and on")])
            await agent.all_acked()
            assert agent.error is None
    for task in (task for task in tasks if task != bad.session.task_id):
        assert await Log(store, task, 0, None).contents() == ["x", "x", "and on"]  # type: ignore[arg-type]


async def test_a_refused_session_is_told_how_long_to_wait(store: Store, sql: Connection) -> None:
    task = await new_task(store)
    await refuse(sql, task, "XX000")
    async with Desk.open(store) as desk, desk.agent(task) as agent:
        await agent.append([entry(0)], open_epoch=True)
        await asyncio.wait_for(agent.has_ended.wait(), DEADLINE_SECONDS)
        assert isinstance(agent.error, CommitRefused)
        assert agent.error.retry_after >= timedelta(seconds=30)
        assert "secret" not in str(agent.error)


async def refuse_updates(sql: Connection, table: str, task: UUID, code: str) -> None:
    """Make Postgres fail with this SQLSTATE for every update of a row of the task."""
    await sql.execute(f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'a secret' USING ERRCODE = '{code}'; END $$;
        CREATE TRIGGER refuse BEFORE UPDATE ON {table} FOR EACH ROW
        WHEN (NEW.task_id = '{task}') EXECUTE FUNCTION refuse()""")


# A check fails; a row is corrupt; a block cannot be read.
CODES = pytest.mark.parametrize("code", ["23514", "XX001", "58030"])


@CODES
async def test_a_lost_session_that_cannot_be_stored_leaves_no_other_task_connected(
    store: Store, sql: Connection, code: str
) -> None:
    tasks = sorted([await new_task(store) for _ in range(3)])
    async with Desk.open(store) as desk:
        with capture_logs() as events:
            async with AsyncExitStack() as stack:
                for task in tasks:
                    await stack.enter_async_context(desk.agent(task))
                await refuse_updates(sql, "tasks", tasks[1], code)
            await desk.sessions.tick()
        refused = [one["task"] for one in events if one["event"] == "store.row_refused"]
        assert refused == [str(tasks[1])], "it is logged once, and not tried again"
        connected = [(await store.tasks.get(task)).agent_connected for task in tasks]
    assert connected == [False, True, False]


async def synced(desk: Desk, agent: DeskAgent) -> None:
    """Confirm the stored log by a sync that adds nothing."""
    agent.answers_syncs = True
    task = agent.session.task_id
    await desk.sync(task)


@CODES
async def test_a_snapshot_time_that_cannot_be_stored_does_not_prevent_the_others(
    store: Store, sql: Connection, code: str
) -> None:
    tasks = sorted([await new_task(store) for _ in range(3)])
    async with Desk.open(store) as desk, AsyncExitStack() as stack:
        for task in tasks:
            agent = await stack.enter_async_context(desk.agent(task))
            await synced(desk, agent)
        await refuse_updates(sql, "log_heads", tasks[1], code)
        await desk.sessions.tick()
        times = [(await store.tasks.get(task)).head.snapshot_at for task in tasks]
        assert times == [desk.clock.now, None, desk.clock.now]


async def test_a_goodbye_does_not_wait_for_the_locked_head_of_another_task(
    store: Store, sql: Connection
) -> None:
    tasks = [await new_task(store) for _ in range(2)]
    async with Desk.open(store) as desk, desk.agent(tasks[0]) as one, desk.agent(tasks[1]) as two:
        await synced(desk, one)
        await synced(desk, two)
        async with sql.transaction():
            await sql.execute("SELECT FROM log_heads WHERE task_id = $1 FOR UPDATE", tasks[0])
            leaving = desk.sessions.goodbye(two.session, GoodbyeReason.STOPPING)
            await asyncio.wait_for(leaving, DEADLINE_SECONDS)
        assert (await store.tasks.get(tasks[1])).head.snapshot_at == desk.clock.now


@pytest.mark.parametrize("table", ["tasks", "log_heads"])
async def test_agents_of_a_locked_task_do_not_block_other_agents(
    store: Store, sql: Connection, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    monkeypatch.setattr(sessions, "_HANDSHAKE_SECONDS", 0.3)
    held, other = [await new_task(store) for _ in range(2)]
    async with Desk.open(store, handshakes=1) as desk:
        async with sql.transaction():
            await sql.execute(f"SELECT FROM {table} WHERE task_id = $1 FOR UPDATE", held)
            late = [asyncio.create_task(connected(desk, held)) for _ in range(3)]
            await asyncio.wait_for(connected(desk, other), DEADLINE_SECONDS)
            for one in late:
                with pytest.raises(StoreUnavailable):
                    await asyncio.wait_for(one, DEADLINE_SECONDS)
        monkeypatch.undo()
        await connected(desk, held)


async def connected(desk: Desk, task: UUID) -> None:
    async with desk.agent(task):
        pass
