"""Losses: sessions that the store records as open in this process and that have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import timedelta
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from tasklogs_server.domain.errors import LogCorrupt, StoreUnavailable
from tasklogs_server.ingest import lost_sessions as losses
from tasklogs_server.store import Store
from tests.ingest.desk import Desk
from tests.store.logs import Connection, new_task, waits_for_a_lock


async def is_connected(desk: Desk, task: UUID) -> bool:
    return (await desk.store.tasks.get(task)).agent_connected


async def test_a_tick_during_a_handshake_does_not_mark_its_session(
    desk: Desk, task: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_session = desk.store.sessions.open_session
    committed, go_on = asyncio.Event(), asyncio.Event()

    async def slow(*args: object, **kwargs: object) -> object:
        opening = await open_session(*args, **kwargs)  # type: ignore[arg-type]
        committed.set()
        await go_on.wait()
        return opening

    monkeypatch.setattr(desk.store.sessions, "open_session", slow)
    agent = desk.agent(task)
    connecting = asyncio.create_task(agent.__aenter__())
    await committed.wait()
    await desk.sessions.tick()
    assert await is_connected(desk, task)
    go_on.set()
    await connecting
    await desk.sessions.tick()
    assert await is_connected(desk, task)
    await agent.__aexit__(None, None, None)
    assert not await is_connected(desk, task)


async def test_a_late_statement_marks_no_session_that_began_after_it(
    desk: Desk, task: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_sessions = desk.store.sessions.lose_sessions
    sent, go_on = asyncio.Event(), asyncio.Event()

    async def late(serials: Collection[int]) -> Collection[int]:
        sent.set()
        await go_on.wait()
        return await lose_sessions(serials)

    agent = desk.agent(task)
    await agent.__aenter__()
    monkeypatch.setattr(desk.store.sessions, "lose_sessions", late)
    leaving = asyncio.create_task(agent.__aexit__(None, None, None))
    await sent.wait()
    async with desk.agent(task):
        go_on.set()
        await leaving
        assert await is_connected(desk, task)
    assert not await is_connected(desk, task)


async def test_a_late_tick_marks_no_session_that_began_after_it(
    desk: Desk, task: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_serials = desk.store.sessions.open_serials
    sent, go_on = asyncio.Event(), asyncio.Event()

    async def late(last: int, *, but_for: Collection[int]) -> Sequence[int]:
        sent.set()
        await go_on.wait()
        return await open_serials(last, but_for=but_for)

    monkeypatch.setattr(desk.store.sessions, "open_serials", late)
    ticking = asyncio.create_task(desk.sessions.tick())
    await sent.wait()
    async with desk.agent(task):
        go_on.set()
        await ticking
        assert await is_connected(desk, task)
    assert not await is_connected(desk, task)


async def test_the_next_tick_finds_a_session_whose_end_was_not_marked(
    desk: Desk, task: UUID, sql: Connection
) -> None:
    async with desk.agent(task):
        pass
    # As if a lost COMMIT were executed only now.
    await sql.execute("UPDATE tasks SET session_lost_at = NULL")
    assert await is_connected(desk, task)
    await desk.sessions.tick()
    assert not await is_connected(desk, task)


async def test_a_session_that_ends_while_its_row_is_locked_is_marked_once_it_is_free(
    desk: Desk, task: UUID, sql: Connection
) -> None:
    agent = desk.agent(task)
    await agent.__aenter__()
    async with sql.transaction():
        await sql.execute("SELECT FROM tasks FOR UPDATE")
        leaving = asyncio.create_task(agent.__aexit__(None, None, None))
        await asyncio.wait([leaving], timeout=0.1)
        assert not leaving.done()
    await asyncio.wait_for(leaving, 1)
    assert not await is_connected(desk, task)  # without a tick


async def test_a_locked_row_delays_neither_other_losses_nor_its_own_stream_for_long(
    desk: Desk, task: UUID, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "_LOCKED_WAIT", timedelta(seconds=0.3))
    other = await new_task(desk.store)
    held, free = desk.agent(task), desk.agent(other)
    await held.__aenter__()
    await free.__aenter__()
    async with sql.transaction():
        await sql.execute("SELECT FROM tasks WHERE task_id = $1 FOR UPDATE", task)
        leaving = asyncio.create_task(held.__aexit__(None, None, None))
        await asyncio.wait_for(free.__aexit__(None, None, None), 1)
        assert not await is_connected(desk, other)
        await asyncio.wait_for(leaving, 5)
        await asyncio.wait_for(desk.sessions.tick(), 1)
        assert not await waits_for_a_lock(sql)
    assert await is_connected(desk, task)
    await desk.sessions.tick()
    assert not await is_connected(desk, task)


async def test_streams_that_end_together_are_marked_by_few_statements(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements = 0
    lose_sessions = store.sessions.lose_sessions

    async def counted(serials: Collection[int]) -> Collection[int]:
        nonlocal statements
        statements += 1
        return await lose_sessions(serials)

    monkeypatch.setattr(store.sessions, "lose_sessions", counted)
    tasks = [await new_task(store) for _ in range(20)]
    async with Desk.open(store) as desk:
        agents = [desk.agent(task) for task in tasks]
        await asyncio.gather(*(one.__aenter__() for one in agents))
        await asyncio.gather(*(one.__aexit__(None, None, None) for one in agents))
        assert not any([await is_connected(desk, task) for task in tasks])
    assert statements <= 3


async def test_handshakes_that_fail_leave_nothing_behind(
    desk: Desk, task: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*args: object, **kwargs: object) -> object:
        raise StoreUnavailable(timedelta(seconds=1))

    monkeypatch.setattr(desk.store.sessions, "open_session", refuse)
    with pytest.raises(StoreUnavailable):
        await desk.agent(task).__aenter__()
    assert not desk.sessions._losses._live


async def test_a_tick_that_cannot_read_a_row_still_writes_confirmed_times(
    desk: Desk, task: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def corrupt(*args: object, **kwargs: object) -> object:
        raise LogCorrupt

    monkeypatch.setattr(desk.store.sessions, "open_serials", corrupt)
    async with desk.agent(task) as agent:
        agent.answers_syncs = True
        confirmed_at = (await agent.session.sync(timedelta(seconds=1))).began_at
        with capture_logs() as events:
            await desk.sessions.tick()
    assert [one["event"] for one in events] == ["losses.failed"]
    assert (await desk.store.tasks.get(task)).head.snapshot_at == confirmed_at
    assert not await is_connected(desk, task), "the end of a session is still marked"
