"""Retention: limits that were lowered, tasks that stay paused."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from tasklogs_server.bus.notes import Deleted
from tasklogs_server.domain.description import NewTask
from tasklogs_server.domain.status import (
    Facts,
)
from tasklogs_server.store import Store
from tests.ingest.desk import Desk
from tests.store.logs import Connection, Log, new_task
from tests.support.fixtures.conditions import until
from tests.tasks.keeper import (
    CODES,
    DAY,
    DELETED,
    NOT_PAUSED,
    PAUSED,
    WEEK,
    Keeper,
    age,
    is_there,
    locked,
    paused,
    refuse,
)


async def test_a_sweep_evicts_from_logs_that_are_past_lowered_limits(
    keeper: Keeper, store: Store, sql: Connection
) -> None:
    task, young = await paused(store, contents=30), await paused(store, contents=30)
    await keeper.work.sweep()
    assert (await store.tasks.get(task)).head.held_entries == 30  # all entries are young
    await age(sql, task, DAY)
    await keeper.work.sweep()
    assert (await store.tasks.get(task)).head.held_entries == 30  # a sweep comes once an hour
    keeper.now += 3600
    await keeper.work.sweep()
    assert (await store.tasks.get(task)).head.held_entries <= 10
    assert (await store.tasks.get(young)).head.held_entries == 30


@pytest.mark.parametrize("facts", [PAUSED, DELETED], ids=["stopped", "deleted"])
@pytest.mark.parametrize("contents", [0, 3])
async def test_a_task_that_is_paused_for_longer_than_the_retention_is_deleted(
    keeper: Keeper, store: Store, sql: Connection, facts: Facts, contents: int
) -> None:
    task = await paused(store, facts, contents=contents)
    name = (await store.tasks.get(task)).name
    await age(sql, task, WEEK - timedelta(hours=1))
    await keeper.work.retire()
    assert await is_there(sql, task)
    await age(sql, task, timedelta(hours=2))
    await keeper.work.retire()
    assert not await is_there(sql, task)
    assert keeper.notes == [Deleted(task)]
    again = await keeper.directory.create(NewTask("local", name))
    assert again[0].task_id != task
    assert await store.tasks.token_hash(task) is None


@pytest.mark.parametrize("facts", NOT_PAUSED.values(), ids=NOT_PAUSED.keys())
async def test_only_paused_tasks_are_retired(
    keeper: Keeper, store: Store, sql: Connection, facts: Facts
) -> None:
    task = await paused(store, facts, contents=1)
    await age(sql, task, timedelta(days=1000))
    await keeper.work.retire()
    assert await is_there(sql, task)
    assert not await store.retirements.retire([task], WEEK, is_paused=lambda _: True)


async def test_without_a_retention_nothing_is_retired(
    desk: Desk, store: Store, sql: Connection
) -> None:
    task = await paused(store)
    await age(sql, task, timedelta(days=1000))
    await Keeper(desk, retention=None).work.retire()
    assert await is_there(sql, task)


async def test_reports_commits_and_streams_restart_the_retention_period(
    keeper: Keeper, store: Store, sql: Connection
) -> None:
    reported, repeated, wrote, connected = [await paused(store, contents=1) for _ in range(4)]
    for task in (reported, repeated, wrote, connected):
        await age(sql, task, 2 * WEEK)
    await store.tasks.change_facts(reported, lambda _: DELETED)
    await store.tasks.change_facts(repeated, lambda facts: facts)  # changes nothing
    log = await Log.open(store, wrote)
    await log.write(log.commit([b"late"]))
    await log.lose_session()
    await sql.execute("UPDATE tasks SET session_lost_at = session_lost_at - $1::interval", 2 * WEEK)
    holds = await Log.open(store, connected)
    await keeper.work.retire()
    left = [await is_there(sql, task) for task in (reported, repeated, wrote, connected)]
    assert left == [True, False, True, True]
    await age(sql, wrote, 2 * WEEK)
    await keeper.work.retire()
    assert not await is_there(sql, wrote)
    # The stream is lost now: the period begins.
    await holds.lose_session()
    await keeper.work.retire()
    assert await is_there(sql, connected)


async def test_a_stream_counts_as_lost_when_its_server_was_killed_days_ago(
    keeper: Keeper, store: Store, database: str, sql: Connection
) -> None:
    task = await new_task(store)
    await store.tasks.change_facts(task, lambda _: PAUSED)
    await age(sql, task, 2 * WEEK)
    killed = await Store.open(database, read_connections=2, lease=timedelta(seconds=30))
    await killed.sessions.open_session(task, admit=lambda _: None, connect=None)
    await sql.execute(
        "UPDATE processes SET heartbeat_at = heartbeat_at - interval '2 days'"
        " WHERE process_id = (SELECT session_process FROM tasks WHERE task_id = $1)",
        task,
    )
    later = await Store.open(database, read_connections=2, lease=timedelta(seconds=30))
    await keeper.work.retire()
    assert await is_there(sql, task)
    await age(sql, task, WEEK - DAY)
    await keeper.work.retire()
    assert not await is_there(sql, task)
    for one in (killed, later):
        await one.close()


async def test_a_round_retires_all_that_are_due(
    keeper: Keeper, store: Store, sql: Connection
) -> None:
    tasks = [await paused(store) for _ in range(50)]
    for task in tasks:
        await age(sql, task, 2 * WEEK)
    await keeper.work.retire()
    assert [task for task in tasks if await is_there(sql, task)] == []
    assert keeper.work.backlog == 0


@CODES
async def test_a_task_that_cannot_be_retired_does_not_stop_the_others(
    keeper: Keeper, store: Store, sql: Connection, code: str
) -> None:
    tasks = [await paused(store) for _ in range(3)]
    for number, task in enumerate(tasks):
        await age(sql, task, 2 * WEEK - number * timedelta(hours=1))
    await refuse(sql, "UPDATE", "tasks", tasks[:2], code)
    await keeper.work.retire()
    assert [await is_there(sql, task) for task in tasks] == [True, True, False]
    assert keeper.work.backlog == 2


@CODES
async def test_a_task_that_cannot_be_looked_at_does_not_stop_the_others(
    keeper: Keeper, store: Store, sql: Connection, code: str
) -> None:
    young, due = await paused(store, contents=1), await paused(store, contents=1)
    await age(sql, young, 2 * WEEK)
    await age(sql, due, 2 * WEEK)
    # The look has to note that the task was written to lately.
    await sql.execute("UPDATE log_entries SET committed_at = now() WHERE task_id = $1", young)
    await refuse(sql, "UPDATE", "tasks", [young], code)
    with capture_logs() as logged:
        for _ in range(2):
            await keeper.work.retire()
    assert [await is_there(sql, task) for task in (young, due)] == [True, False]
    # Set aside: it was not tried again in the second round.
    refused = [one["task"] for one in logged if one["event"] == "task.not_retired"]
    assert refused == [str(young)]
    keeper.now += 60
    await sql.execute("DROP TRIGGER refuse ON tasks")
    await keeper.work.retire()
    assert await is_there(sql, young)
    assert keeper.work.backlog == 0


@pytest.mark.parametrize("table", ["tasks", "log_heads", "task_names"])
async def test_a_locked_task_delays_no_retirement_of_others_and_is_retired_later(
    keeper: Keeper, store: Store, sql: Connection, database: str, table: str
) -> None:
    tasks = [await paused(store, contents=1) for _ in range(3)]
    for number, task in enumerate(tasks):
        await age(sql, task, 2 * WEEK - number * timedelta(hours=1))
    async with locked(database, table, tasks[0]):
        await keeper.work.retire()
        assert [await is_there(sql, task) for task in tasks] == [True, False, False]
    keeper.now += 60
    await keeper.work.retire()
    assert not await is_there(sql, tasks[0])


@CODES
async def test_a_log_that_cannot_be_evicted_does_not_stop_the_eviction_of_others(
    keeper: Keeper, store: Store, sql: Connection, code: str
) -> None:
    tasks = sorted([await paused(store, contents=30) for _ in range(3)])
    for task in tasks:
        await age(sql, task, DAY)
    await refuse(sql, "DELETE", "log_entries", tasks[:2], code)
    await keeper.work.sweep()
    held = [(await store.tasks.get(task)).head.held_entries for task in tasks]
    assert held[:2] == [30, 30]
    assert held[2] <= 10


@pytest.mark.parametrize("table", ["log_entries", "log_heads"])
async def test_a_locked_log_stops_no_eviction_from_others_and_is_tried_again(
    keeper: Keeper, store: Store, sql: Connection, database: str, table: str
) -> None:
    tasks = sorted([await paused(store, contents=30) for _ in range(2)])
    for task in tasks:
        await age(sql, task, DAY)

    async def held() -> list[int]:
        return [(await store.tasks.get(task)).head.held_entries for task in tasks]

    async with locked(database, table, tasks[0]):
        for _ in range(2):
            await keeper.work.sweep()
            first, second = await held()
            assert (first, second <= 10) == (30, True)
    await keeper.work.sweep()
    assert max(await held()) <= 10


async def test_the_retirement_does_not_wait_for_a_sweep_that_hangs(
    keeper: Keeper, store: Store, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper.work, "sweep", asyncio.Event().wait)
    task = await paused(store)
    await age(sql, task, 2 * WEEK)
    running = asyncio.create_task(keeper.work.run())
    try:

        async def is_gone() -> bool:
            return not await is_there(sql, task)

        await until(is_gone)
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_the_loop_goes_on_after_one_piece_of_work_fails(
    desk: Desk, store: Store, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = Keeper(desk)
    failed = asyncio.Event()

    async def fail() -> None:
        failed.set()
        raise ValueError("in one piece of work")

    monkeypatch.setattr(keeper.work, "sweep", fail)
    task = await paused(store)
    await age(sql, task, 2 * WEEK)
    running = asyncio.create_task(keeper.work.run())
    try:
        await until(failed.is_set)

        async def is_gone() -> bool:
            return not await is_there(sql, task)

        await until(is_gone)
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.wait([running])
