"""Retention: marks of age, limits that were lowered, tasks that stay paused."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from tasklogs_server.bus.notes import Deleted, Moved
from tasklogs_server.domain.status import (
    BuildTransition,
    Facts,
    JobStatus,
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
    paused,
    refuse,
)


async def marks(sql: Connection, task: UUID) -> list[int]:
    rows = await sql.fetch(
        "SELECT revision FROM log_marks WHERE task_id = $1 ORDER BY revision", task
    )
    return [row["revision"] for row in rows]


async def test_a_log_that_changes_is_marked_once_per_interval_of_marks(
    keeper: Keeper, log: Log, sql: Connection
) -> None:
    async def move() -> None:
        await log.write(log.commit([b"x"], open_epoch=log.head.epoch == 0))
        keeper.bus.publish(Moved(log.task_id, log.head))

    await move()
    await keeper.work.mark_moved()
    assert await marks(sql, log.task_id) == [2]
    for _ in range(3):
        await move()
        await keeper.work.mark_moved()
    assert await marks(sql, log.task_id) == [2]
    await age(sql, log.task_id, timedelta(hours=1))
    keeper.now += 3600
    await keeper.work.mark_moved()  # no change since: the last one is not forgotten
    assert await marks(sql, log.task_id) == [2, 5]
    keeper.bus.publish(Moved(log.task_id))  # a report does not change the log
    keeper.now += 3600
    await keeper.work.mark_moved()
    assert await marks(sql, log.task_id) == [2, 5]


async def test_a_log_whose_head_a_commit_locks_is_marked_in_the_next_round(
    keeper: Keeper, log: Log, sql: Connection
) -> None:
    await log.write(log.commit([b"x"], open_epoch=True))
    keeper.bus.publish(Moved(log.task_id, log.head))
    async with sql.transaction():
        await sql.execute("SELECT FROM log_heads WHERE task_id = $1 FOR UPDATE", log.task_id)
        await keeper.work.mark_moved()
    assert await marks(sql, log.task_id) == []
    await keeper.work.mark_moved()
    assert await marks(sql, log.task_id) == [2]


async def test_restarts_of_the_server_make_no_extra_marks(
    desk: Desk, log: Log, sql: Connection
) -> None:
    for number in range(3):
        fresh = Keeper(desk)
        await log.write(log.commit([b"x"], open_epoch=number == 0))
        fresh.bus.publish(Moved(log.task_id, log.head))
        await fresh.work.mark_moved()
    assert await marks(sql, log.task_id) == [2]


async def test_a_sweep_evicts_from_logs_that_are_past_lowered_limits(
    keeper: Keeper, store: Store, sql: Connection
) -> None:
    task, young = await paused(store, contents=30), await paused(store, contents=30)
    await keeper.work.sweep()
    assert (await store.tasks.get(task)).head.held_entries == 30  # no mark: its age is unknown
    for one in (task, young):
        await store.evictions.mark(one, every=timedelta(0), min_retention=DAY)
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
    await keeper.work.sweep()  # marks the log
    await age(sql, task, WEEK - timedelta(hours=1))
    await keeper.work.retire()
    assert await is_there(sql, task)
    await age(sql, task, timedelta(hours=2))
    await keeper.work.retire()
    assert not await is_there(sql, task)
    assert keeper.notes == [Deleted(task)]
    again = await keeper.directory.create(
        owner="local", name=name, display_name="", prompt="", standalone=False
    )
    assert again[0].task_id != task
    assert await store.tasks.token_hash(task) is None
    while not await store.tasks.purge(task):
        pass
    assert await marks(sql, task) == []


@pytest.mark.parametrize("facts", NOT_PAUSED.values(), ids=NOT_PAUSED.keys())
async def test_only_paused_tasks_are_retired(
    keeper: Keeper, store: Store, sql: Connection, facts: Facts
) -> None:
    task = await paused(store, facts, contents=1)
    await store.evictions.mark(task, every=timedelta(0), min_retention=DAY)
    await age(sql, task, timedelta(days=1000))
    await keeper.work.retire()
    assert await is_there(sql, task)
    assert not await store.tasks.retire(task, WEEK, is_paused=lambda _: True)


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
    await keeper.work.sweep()
    for task in (reported, repeated, wrote, connected):
        await age(sql, task, 2 * WEEK)
    await store.tasks.change_facts(reported, lambda _: DELETED)
    await store.tasks.change_facts(repeated, lambda facts: facts)  # changes nothing
    log = await Log.open(store, wrote)
    await log.write(log.commit([b"late"]))
    await store.sessions.lose_sessions([(wrote, log.fence)])  # without a mark of what it wrote
    await age(sql, wrote, 2 * WEEK)
    holds = await Log.open(store, connected)
    await keeper.work.retire()
    left = [await is_there(sql, task) for task in (reported, repeated, wrote, connected)]
    assert left == [True, False, True, True]
    await store.evictions.mark(wrote, every=timedelta(0), min_retention=DAY)
    await keeper.work.retire()
    assert await is_there(sql, wrote)  # its first mark is of now, so its commit may be
    await age(sql, wrote, 2 * WEEK)
    await keeper.work.retire()
    assert not await is_there(sql, wrote)
    # The stream is lost now: the period begins.
    await store.sessions.lose_sessions([(connected, holds.fence)])
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


async def test_a_report_between_the_look_and_the_deletion_keeps_the_task(
    store: Store, sql: Connection
) -> None:
    task = await paused(store)
    await age(sql, task, 2 * WEEK)
    assert await store.tasks.to_retire(WEEK, limit=10) == [task]
    started = Facts(2, BuildTransition.START, JobStatus.PENDING, None, None)
    await store.tasks.change_facts(task, lambda _: started)
    assert not await store.tasks.retire(task, WEEK, is_paused=lambda _: True)
    assert await is_there(sql, task)


@CODES
async def test_a_log_that_cannot_be_marked_does_not_stop_the_marks_of_others(
    keeper: Keeper, store: Store, sql: Connection, code: str
) -> None:
    tasks = [await paused(store, contents=1) for _ in range(5)]
    await refuse(sql, "INSERT", "log_marks", tasks[:4], code)
    for task in tasks:
        keeper.bus.publish(Moved(task, "a commit"))
    await keeper.work.mark_moved()
    assert [await marks(sql, task) for task in tasks] == [[], [], [], [], [2]]


@CODES
async def test_a_log_that_cannot_be_evicted_does_not_stop_the_eviction_of_others(
    keeper: Keeper, store: Store, sql: Connection, code: str
) -> None:
    tasks = sorted([await paused(store, contents=30) for _ in range(3)])
    for task in tasks:
        await store.evictions.mark(task, every=timedelta(0), min_retention=DAY)
        await age(sql, task, DAY)
    await refuse(sql, "DELETE", "log_entries", tasks[:2], code)
    await keeper.work.sweep()
    held = [(await store.tasks.get(task)).head.held_entries for task in tasks]
    assert held[:2] == [30, 30]
    assert held[2] <= 10


async def test_the_loop_goes_on_after_one_piece_of_work_fails(
    desk: Desk, store: Store, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = Keeper(desk)
    failed = asyncio.Event()

    async def fail() -> None:
        failed.set()
        raise ValueError("in one piece of work")

    monkeypatch.setattr(keeper.work, "mark_moved", fail)
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
