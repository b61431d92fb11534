"""I11: a foreign transaction holds rows of one task. No other task is delayed or ended by that."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from tasklogs.log.entry import Entry, EntryType, Time
from tasklogs_server.domain.errors import StoreUnavailable
from tasklogs_server.domain.status import Facts
from tasklogs_server.ingest import upload
from tasklogs_server.ingest.messages import GoodbyeReason
from tasklogs_server.store import Store
from tasklogs_server.store.evictions import LogLimits
from tests.ingest.desk import Desk, DeskAgent, entry, grown
from tests.store.logs import Connection, Log, new_task
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until
from tests.support.fixtures.pace import pace_of

_LATE_SECONDS = 0.5
"""How late other tasks' acks may be, by the contract."""

_HOLD = {
    "an entry": "SELECT FROM log_entries WHERE task_id = $1 FOR UPDATE",
    "a part of the tail": "SELECT FROM log_tail_parts WHERE task_id = $1 FOR UPDATE",
    "the head": "SELECT FROM log_heads WHERE task_id = $1 FOR UPDATE",
    "the key of the next entry": """
        INSERT INTO log_entries (task_id, epoch, ordinal, id, revision, head, content, type)
        SELECT task_id, epoch, ordinal + 1, id + 1, revision + 99, head, content, type
          FROM log_entries WHERE task_id = $1""",
}


@asynccontextmanager
async def agents_of(desk: Desk, count: int) -> AsyncIterator[Sequence[DeskAgent]]:
    """Connect agents whose tails have a part: the next entry rewrites the row of the tail."""
    async with AsyncExitStack() as stack:
        agents = []
        for _ in range(count):
            agent = await stack.enter_async_context(desk.agent(await new_task(desk.store)))
            await agent.append([entry(0, "x")], open_epoch=True)
            await agent.all_acked()
            await agent.append(tail=grown(0, 1, "y"))
            await agent.all_acked()
            agents.append(agent)
        yield agents


@asynccontextmanager
async def holding(sql: Connection, statement: str, *arguments: object) -> AsyncIterator[None]:
    """Hold locks in a transaction as long as the block lasts. Nothing of it is committed."""
    transaction = sql.transaction()
    await transaction.start()
    try:
        await sql.execute(statement, *arguments)
        yield
    finally:
        await transaction.rollback()


async def acked_or_ended(agent: DeskAgent) -> None:
    """Wait until everything that was sent is acknowledged. Raises what ended the stream."""
    await until(lambda: agent.acked == agent.sent or agent.error is not None)
    if agent.error is not None:
        raise agent.error


async def slowest_round(agents: Sequence[DeskAgent], ids: range) -> float:
    """Let all agents append entry after entry; return the longest time to an ack in seconds."""
    loop = asyncio.get_running_loop()

    async def one(agent: DeskAgent, id_: int) -> float:
        began = loop.time()
        await agent.append([entry(id_)])
        await acked_or_ended(agent)
        return loop.time() - began

    slowest = 0.0
    for id_ in ids:
        slowest = max(slowest, *await asyncio.gather(*(one(agent, id_) for agent in agents)))
    return slowest


@pytest.mark.parametrize("what", list(_HOLD))
async def test_a_held_row_ends_no_stream_and_delays_only_its_own_task(
    store: Store, sql: Connection, database: str, what: str
) -> None:
    async with (
        Desk.open(store) as desk,
        agents_of(desk, 25) as (held, *others),
        pace_of(database) as pace,
    ):
        await slowest_round(others, range(1, 6))
        began = time.monotonic()
        async with holding(sql, _HOLD[what], held.session.task_id):
            await held.append([entry(1)])
            slowest = await slowest_round(others, range(6, 36))
            assert held.acked == held.sent - 1
        await acked_or_ended(held)
        assert [one.error for one in (held, *others)] == [None] * 25
        # The batch that meets the lock is tried again in parts: a dozen commits, one by one.
        assert slowest <= _LATE_SECONDS + 12 * pace.slowest_since(began)


async def test_a_table_that_is_locked_for_a_moment_ends_no_stream(
    store: Store, sql: Connection
) -> None:
    async with Desk.open(store) as desk, agents_of(desk, 25) as agents:
        async with holding(sql, "LOCK TABLE log_entries IN EXCLUSIVE MODE"):
            for agent in agents:
                await agent.append([entry(1)])
            await until(lambda: desk.group_commit.held_tasks > 3)
        for agent in agents:
            await acked_or_ended(agent)


async def test_large_commits_that_are_held_leave_the_batches_to_others(
    store: Store, sql: Connection
) -> None:
    async with Desk.open(store) as desk, agents_of(desk, 6) as (other, *held):
        tasks = [one.session.task_id for one in held]
        async with holding(sql, "SELECT FROM log_heads WHERE task_id = ANY ($1) FOR UPDATE", tasks):
            for agent in held:
                for content in "ab":  # the second one replaces the first one, or waits
                    await agent.append([entry(1, content * 1_000_000)])
            await until(lambda: desk.group_commit.held_tasks == 5)
            for id_ in range(1, 21):
                await other.append([entry(id_, "0123456789")])
                await acked_or_ended(other)
            assert [one.acked for one in held] == [2] * 5
        for agent in held:
            await acked_or_ended(agent)


async def commit_is_held(desk: Desk, agent: DeskAgent) -> None:
    await until(lambda: desk.group_commit._held.has(agent.session))


async def test_a_held_session_ends_where_others_wait_for_its_bytes(
    store: Store, sql: Connection
) -> None:
    mib = 1 << 20
    async with (
        Desk.open(store, ingest_bytes=4 * mib) as desk,
        agents_of(desk, 4) as (first, second, other, later),
    ):
        tasks = [one.session.task_id for one in (first, second)]
        async with holding(sql, "SELECT FROM log_heads WHERE task_id = ANY ($1) FOR UPDATE", tasks):
            for agent in (first, second):
                await agent.append([entry(1, "x" * mib)])
                await commit_is_held(desk, agent)
                await agent.append([entry(2, "x" * (mib // 2))])
            for agent in (other, later):
                await asyncio.wait_for(agent.append([entry(1, "x" * mib)]), DEADLINE_SECONDS)
                await acked_or_ended(agent)
            assert desk.budget.held_bytes <= 4 * mib
            await until(first.has_ended.is_set)
            assert isinstance(first.error, StoreUnavailable)
            assert first.error.retry_after is not None
            assert second.error is None, "one was enough"
        await acked_or_ended(second)
        assert desk.budget.held_bytes == 0


async def test_a_session_that_is_held_for_too_long_ends(
    store: Store, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasklogs_server.ingest.held_commits._GIVEN_UP_AFTER_SECONDS", 0.1)
    async with Desk.open(store) as desk, agents_of(desk, 1) as (held,):
        async with holding(sql, _HOLD["the head"], held.session.task_id):
            await held.append([entry(1)])
            await until(held.has_ended.is_set)
        assert isinstance(held.error, StoreUnavailable)
        assert desk.group_commit.held_tasks == 0


async def synced(desk: Desk, agent: DeskAgent) -> None:
    agent.answers_syncs = True
    await desk.sync(agent.session.task_id)


async def test_a_held_head_delays_no_other_confirmed_time_and_no_release_of_tails(
    store: Store, sql: Connection
) -> None:
    async with Desk.open(store, tail_bytes=0) as desk, agents_of(desk, 3) as (held, *others):
        desk.clock.advance(60)
        for agent in (held, *others):
            await synced(desk, agent)

        async def times() -> list[bool]:
            tasks = [await store.tasks.get(one.session.task_id) for one in (held, *others)]
            return [task.head.snapshot_at == desk.clock.now for task in tasks]

        async with holding(sql, _HOLD["the head"], held.session.task_id):
            await desk.sessions.tick()
            desk.tails.release()
            assert await times() == [False, True, True]
            assert [one.session.tail_bytes for one in (held, *others)] == [0, 0, 0]
            # A goodbye does without the time, too, and a later tick writes it.
            await desk.sessions.goodbye(held.session, GoodbyeReason.STOPPING)
        await desk.sessions.tick()
        assert await times() == [True, True, True]


async def test_five_agents_that_vanish_are_lost_save_the_one_whose_row_is_held(
    store: Store, sql: Connection
) -> None:
    async with Desk.open(store) as desk:
        async with AsyncExitStack() as stack:
            tasks = [await new_task(store) for _ in range(5)]
            agents = [await stack.enter_async_context(desk.agent(task)) for task in tasks]
            async with holding(sql, "SELECT FROM tasks WHERE task_id = $1 FOR UPDATE", tasks[2]):
                await asyncio.gather(*(desk.sessions._finish(one.session) for one in agents))
                connected = [(await store.tasks.get(task)).agent_connected for task in tasks]
                assert connected == [False, False, True, False, False]
            await desk.sessions.tick()
        assert not (await store.tasks.get(tasks[2])).agent_connected


async def unchanged(store: Store, task: UUID) -> None:
    await store.tasks.change_facts(task, _same)


def _same(facts: Facts) -> Facts:
    return facts


_CALLS: dict[str, Callable[[Store, UUID], Awaitable[object]]] = {
    "a report": unchanged,
    "an update": lambda store, task: store.tasks.update(task, lambda one: one),
    "a rotation": lambda store, task: store.tasks.rotate_token(task, bytes(32)),
    "a deletion": lambda store, task: store.tasks.delete(task),
    "an upload": lambda store, task: store.sessions.open_upload(task),
}


@pytest.mark.parametrize("call", list(_CALLS))
async def test_callers_of_a_held_task_leave_the_connections_to_readers(
    store: Store, sql: Connection, call: str
) -> None:
    other, *held = [await new_task(store) for _ in range(7)]
    async with holding(sql, "SELECT FROM tasks WHERE task_id = ANY ($1) FOR UPDATE", held):
        # The store of a test has four connections for reads.
        calls = [asyncio.ensure_future(_CALLS[call](store, task)) for task in held * 2]
        for _ in range(20):
            await store.tasks.get(other)
            await asyncio.sleep(0)
        assert not any(one.done() for one in calls)
        failed = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(one) for one in failed} == {StoreUnavailable}
    await _CALLS[call](store, held[0])


async def test_a_call_for_a_row_that_is_free_again_soon_succeeds(
    store: Store, sql: Connection
) -> None:
    task = await new_task(store)
    async with holding(sql, "SELECT FROM tasks WHERE task_id = $1 FOR UPDATE", task):
        calls = [asyncio.ensure_future(unchanged(store, task)) for _ in range(12)]
        done, _ = await asyncio.wait(calls, timeout=0.2)
        assert not done
    await asyncio.gather(*calls)


@pytest.mark.parametrize("table", ["tasks", "log_heads"])
async def test_an_agent_of_a_held_task_gives_its_turn_back(
    store: Store, sql: Connection, table: str
) -> None:
    held, other = [await new_task(store) for _ in range(2)]

    async def connect(task: UUID) -> None:
        async with desk.agent(task):
            pass

    async with Desk.open(store, handshakes=1) as desk:
        async with holding(sql, f"SELECT FROM {table} WHERE task_id = $1 FOR UPDATE", held):
            waiting = [asyncio.create_task(connect(held)) for _ in range(3)]
            await asyncio.sleep(0)
            await asyncio.wait_for(connect(other), DEADLINE_SECONDS)
            assert not any(one.done() for one in waiting)
        await asyncio.gather(*waiting, return_exceptions=True)
        await connect(held)


async def test_a_large_upload_does_not_wait_for_another_one_whose_head_is_held(
    store: Store, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "_LARGE_BYTES", 0)
    held, other = [await new_task(store) for _ in range(2)]
    is_open, go_on = asyncio.Event(), asyncio.Event()

    async def opened() -> None:
        is_open.set()
        await go_on.wait()

    async with Desk.open(store) as desk:
        late = asyncio.create_task(desk.uploads.upload(held, [entry(0)], still_opens=opened))
        await is_open.wait()
        async with holding(sql, _HOLD["the head"], held):
            go_on.set()
            await until(lambda: store._large_upload_connections.in_use > 0)
            await desk.uploads.upload(other, [entry(0)])
            assert not late.done()
        await late


async def uploaded(desk: Desk, task: UUID, count: int) -> None:
    """Upload in one message, as the service does it."""
    async with desk.uploads.turn(task, 100) as turn:
        entries = [entry(id_) for id_ in range(count)]
        await desk.uploads.upload(task, entries, turn=turn)


async def uploaded_in_parts(desk: Desk, task: UUID, count: int) -> None:
    """Upload in parts, as the service does it."""
    with desk.uploads.in_parts(task) as parts:
        parts.add([entry(id_) for id_ in range(count)])
        await desk.uploads.upload_parts(task, parts)


@pytest.mark.parametrize("how", [uploaded, uploaded_in_parts])
async def test_uploads_of_held_tasks_leave_their_turns_and_places_to_others(
    store: Store, sql: Connection, how: Callable[[Desk, UUID, int], Coroutine[Any, Any, None]]
) -> None:
    # The desk has two turns, and four places.
    other, *held = [await new_task(store, f"t{number}") for number in range(6)]
    async with Desk.open(store) as desk:
        for task in (other, *held):
            await how(desk, task, 1)
        key = _HOLD["the key of the next entry"].replace("= $1", "= ANY ($1)")
        async with holding(sql, key, held):
            late: list[asyncio.Task[None]] = []
            for task in held:
                late.append(asyncio.create_task(how(desk, task, 2)))
                await until(lambda: desk.group_commit.held_tasks == len(late))
            for count in (2, 3):
                await how(desk, other, count)
            assert not any(one.done() for one in late)
        await asyncio.gather(*late)


async def test_an_upload_that_is_held_keeps_only_what_is_new_in_memory(
    store: Store, sql: Connection
) -> None:
    class Watched(Entry):
        """An entry that can be referred to weakly."""

        __slots__ = ("__weakref__",)

    watched: list[weakref.ref[Entry]] = []

    def conversation() -> Sequence[Entry]:
        first = Watched(0, EntryType.OUTPUT, Time(0, 0), b"x")
        watched.append(weakref.ref(first))
        return [first, entry(1)]

    async def upload() -> None:
        async with desk.uploads.turn(task, 100) as turn:
            await desk.uploads.upload(task, conversation(), turn=turn)

    task = await new_task(store)
    async with Desk.open(store) as desk:
        await uploaded(desk, task, 1)
        async with holding(sql, _HOLD["the key of the next entry"], task):
            late = asyncio.create_task(upload())
            await until(lambda: desk.group_commit.held_tasks == 1)
            gc.collect()
            assert [one() for one in watched] == [None]
        await late


async def test_an_eviction_does_not_wait_for_another_one_whose_rows_are_held(
    store: Store, sql: Connection
) -> None:
    limits = LogLimits(rows=4, bytes=1 << 30, min_retention=timedelta(0))
    async with Desk.open(store, log_limits=limits) as desk, AsyncExitStack() as stack:
        held, other = [
            await stack.enter_async_context(desk.agent(await new_task(store))) for _ in range(2)
        ]
        for agent in (held, other):
            await agent.append([entry(id_) for id_ in range(3)], open_epoch=True)
            await acked_or_ended(agent)
        async with holding(sql, _HOLD["an entry"], held.session.task_id):
            late = asyncio.create_task(held.append([entry(3)]))
            await until(lambda: store._eviction_connections.in_use > 0)
            for id_ in range(3, 9):
                await other.append([entry(id_)])
                await acked_or_ended(other)
            assert not late.done()
        await late
        await acked_or_ended(held)


async def test_a_goodbye_of_a_held_task_delays_no_other_and_does_without_a_fold(
    store: Store, sql: Connection
) -> None:
    async with Desk.open(store) as desk, agents_of(desk, 5) as (other, *held):
        tasks = [one.session.task_id for one in held]
        async with holding(sql, "SELECT FROM log_heads WHERE task_id = ANY ($1) FOR UPDATE", tasks):
            late = [
                asyncio.create_task(desk.sessions.goodbye(one.session, GoodbyeReason.STOPPING))
                for one in held
            ]
            await asyncio.sleep(0)
            await desk.sessions.goodbye(other.session, GoodbyeReason.STOPPING)
            assert not any(one.done() for one in late)
            await asyncio.gather(*late)
    parts = await sql.fetch("SELECT task_id FROM log_tail_parts")
    assert {row["task_id"] for row in parts} == set(tasks)


async def test_a_start_does_not_wait_for_a_held_row_and_a_later_one_marks_it(
    database: str, store: Store, sql: Connection
) -> None:
    tasks = [(await Log.open(store, await new_task(store))).task_id for _ in range(2)]
    await sql.execute("UPDATE processes SET heartbeat_at = heartbeat_at - interval '2 days'")

    async def start() -> list[bool]:
        other = await Store.open(database, read_connections=1, lease=timedelta(seconds=30))
        await other.close()
        lost = "SELECT session_lost_at IS NOT NULL AS lost FROM tasks WHERE task_id = $1"
        return [await sql.fetchval(lost, task) for task in tasks]

    async with holding(sql, "SELECT FROM tasks WHERE task_id = $1 FOR UPDATE", tasks[0]):
        assert await start() == [False, True]
    assert await start() == [True, True]
