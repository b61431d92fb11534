"""The slow work beside answering: limits that were lowered, tasks paused for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest

from tasklogs_server.bus.local import LocalBus
from tasklogs_server.bus.notes import Deleted, Note
from tasklogs_server.domain.errors import TaskNotFound
from tasklogs_server.domain.status import (
    AgentLifecycle,
    AppHealth,
    BuildTransition,
    Facts,
    JobStatus,
)
from tasklogs_server.ingest.log_limits import LogLimiter
from tasklogs_server.store import Store
from tasklogs_server.store.evictions import LogLimits
from tasklogs_server.tasks.directory import Directory
from tasklogs_server.tasks.retention import Housekeeping
from tests.ingest.desk import Desk
from tests.store.logs import Connection, Log, new_task, waits_for_a_lock
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until

DAY, WEEK = timedelta(days=1), timedelta(days=7)
LIMITS = LogLimits(rows=10, bytes=1 << 30, min_retention=DAY)
PAUSED = Facts(1, BuildTransition.STOP, JobStatus.SUCCEEDED, None, None)
DELETED = Facts(1, BuildTransition.DELETE, JobStatus.SUCCEEDED, None, None)
NOT_PAUSED = {
    "no build": Facts(None, None, None, None, None),
    "active": Facts(
        1, BuildTransition.START, JobStatus.SUCCEEDED, AgentLifecycle.READY, AppHealth.HEALTHY
    ),
    "pending": Facts(1, BuildTransition.START, JobStatus.PENDING, None, None),
    "initializing": Facts(1, BuildTransition.START, JobStatus.RUNNING, None, None),
    "error": Facts(1, BuildTransition.STOP, JobStatus.FAILED, None, None),
    "still stopping": Facts(1, BuildTransition.STOP, JobStatus.RUNNING, None, None),
    "off": Facts(1, BuildTransition.START, JobStatus.SUCCEEDED, AgentLifecycle.OFF, None),
}


class Keeper:
    """Housekeeping over the desk's store; each piece of work is called by the test."""

    def __init__(self, desk: Desk, *, retention: timedelta | None = WEEK) -> None:
        self.now = 0.0
        self.bus = LocalBus()
        self.notes: list[Note] = []
        self.bus.listen(self.notes.append)
        store = desk.store
        self.directory = Directory(store.tasks, desk.sessions, self.bus)
        self.work = Housekeeping(
            evictions=store.evictions,
            directory=self.directory,
            log_limiter=LogLimiter(store.evictions, LIMITS),
            limits=LIMITS,
            retention=retention,
            clock=lambda: self.now,
        )


@pytest.fixture
def keeper(desk: Desk) -> Keeper:
    return Keeper(desk)


async def age(sql: Connection, task: UUID, by: timedelta) -> None:
    """Let all that is known of a task's age be so much older."""
    for statement in (
        "UPDATE log_entries SET committed_at = committed_at - $2::interval WHERE task_id = $1",
        "UPDATE log_events SET committed_at = committed_at - $2::interval WHERE task_id = $1",
        "UPDATE tasks SET changed_at = changed_at - $2::interval,"
        " session_lost_at = session_lost_at - $2::interval WHERE task_id = $1",
    ):
        await sql.execute(statement, task, by)


async def paused(store: Store, facts: Facts = PAUSED, *, contents: int = 0) -> UUID:
    """Make a task with these facts, and with a log."""
    task = await new_task(store)
    log = await Log.open(store, task)
    if contents:
        await log.write(log.commit([b"x"] * contents, open_epoch=True))
    await log.lose_session()
    await store.tasks.change_facts(task, lambda _: facts)
    return task


async def is_there(sql: Connection, task: UUID) -> bool:
    found: bool = await sql.fetchval(
        "SELECT EXISTS (SELECT FROM tasks WHERE task_id = $1 AND deleted_at IS NULL)", task
    )
    return found


async def test_logs_past_limits_that_were_lowered_are_brought_within_them(
    keeper: Keeper, store: Store, sql: Connection
) -> None:
    task, young = await paused(store, contents=30), await paused(store, contents=30)
    await keeper.work.sweep()
    assert (await store.tasks.get(task)).head.held_entries == 30  # all is young
    await age(sql, task, DAY)
    await keeper.work.sweep()
    assert (await store.tasks.get(task)).head.held_entries == 30  # once an hour
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
    again = await keeper.directory.create(
        owner="local", name=name, display_name="", prompt="", standalone=False
    )
    assert again[0].task_id != task
    assert await store.tasks.token_hash(task) is None
    while not await store.tasks.purge(task):
        pass


@pytest.mark.parametrize("facts", NOT_PAUSED.values(), ids=NOT_PAUSED.keys())
async def test_only_paused_tasks_are_retired(
    keeper: Keeper, store: Store, sql: Connection, facts: Facts
) -> None:
    task = await paused(store, facts, contents=1)
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


async def test_what_happened_since_begins_the_retention_anew(
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
    # The stream is lost now: the week begins.
    await holds.lose_session()
    await keeper.work.retire()
    assert await is_there(sql, connected)


async def test_the_loss_of_a_stream_counts_also_where_its_server_was_killed_days_ago(
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


async def test_a_report_that_comes_in_between_keeps_the_task(store: Store, sql: Connection) -> None:
    task = await paused(store)
    await age(sql, task, 2 * WEEK)
    assert await store.tasks.to_retire(WEEK, limit=10) == [task]
    started = Facts(2, BuildTransition.START, JobStatus.PENDING, None, None)
    await store.tasks.change_facts(task, lambda _: started)
    assert not await store.tasks.retire(task, WEEK, is_paused=lambda _: True)
    assert await is_there(sql, task)


async def test_a_commit_that_a_retirement_waits_for_keeps_the_task(
    store: Store, sql: Connection, database: str
) -> None:
    task = await paused(store, contents=1)
    await age(sql, task, 2 * WEEK)
    other = await asyncpg.connect(database)
    try:
        async with other.transaction():
            await other.execute("SELECT FROM log_heads WHERE task_id = $1 FOR UPDATE", task)
            await other.execute(
                "INSERT INTO log_entries (task_id, epoch, ordinal, id, revision, head, content)"
                " VALUES ($1, 1, 1, 1, 3, '', '')",
                task,
            )
            retiring = asyncio.create_task(store.tasks.retire(task, WEEK, is_paused=lambda _: True))
            await until(lambda: waits_for_a_lock(sql))
    finally:
        await other.close()
    assert not await retiring
    assert await is_there(sql, task)


async def test_a_few_are_retired_at_a_time_the_longest_paused_first(
    keeper: Keeper, store: Store, sql: Connection
) -> None:
    tasks = [await paused(store) for _ in range(5)]
    for number, task in enumerate(tasks):
        await age(sql, task, 2 * WEEK - number * timedelta(hours=1))
    assert await keeper.directory.retire_paused(WEEK, limit=2) == 2
    assert [await is_there(sql, task) for task in tasks] == [False, False, True, True, True]


async def refuse(sql: Connection, event: str, table: str, tasks: list[UUID], code: str) -> None:
    """Let Postgres fail with this SQLSTATE where rows of these tasks are concerned."""
    row = "OLD" if event == "DELETE" else "NEW"
    named = ", ".join(f"'{task}'" for task in tasks)
    await sql.execute(f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'a secret' USING ERRCODE = '{code}'; END $$;
        CREATE TRIGGER refuse BEFORE {event} ON {table} FOR EACH ROW
        WHEN ({row}.task_id IN ({named})) EXECUTE FUNCTION refuse()""")


# A check says no; a row is corrupt; a block cannot be read.
CODES = pytest.mark.parametrize("code", ["23514", "XX001", "58030"])


@CODES
async def test_a_log_that_cannot_be_evicted_keeps_no_other_past_its_limits(
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


@CODES
async def test_a_task_that_cannot_be_retired_keeps_no_other(
    keeper: Keeper, store: Store, sql: Connection, code: str
) -> None:
    tasks = [await paused(store) for _ in range(3)]
    for number, task in enumerate(tasks):
        await age(sql, task, 2 * WEEK - number * timedelta(hours=1))
    await refuse(sql, "UPDATE", "tasks", tasks[:2], code)
    await keeper.work.retire()
    assert [await is_there(sql, task) for task in tasks] == [True, True, False]


@CODES
async def test_rows_that_cannot_be_deleted_keep_no_other_deleted_tasks(
    keeper: Keeper, store: Store, sql: Connection, code: str
) -> None:
    tasks = [await paused(store, contents=3) for _ in range(3)]
    await refuse(sql, "DELETE", "log_entries", tasks[:2], code)
    for task in tasks:
        await store.tasks.delete(task)
    async with purging(keeper):

        async def is_gone() -> bool:
            return await sql.fetchrow("SELECT FROM tasks WHERE task_id = $1", tasks[2]) is None

        await until(is_gone)


async def test_a_deletion_of_which_nobody_heard_that_it_was_done_is_told_all_the_same(
    keeper: Keeper, desk: Desk, task: UUID
) -> None:
    async with desk.agent(task) as agent:
        # As where the caller left, or the connection broke, just after the commit.
        await desk.store.tasks.delete(task)
        async with purging(keeper):
            await asyncio.wait_for(agent.has_ended.wait(), DEADLINE_SECONDS)
        assert isinstance(agent.error, TaskNotFound)
    assert Deleted(task) in keeper.notes


@asynccontextmanager
async def purging(keeper: Keeper) -> AsyncIterator[None]:
    """Delete what is deleted as long as the block lasts."""
    running = asyncio.create_task(keeper.directory.purge_deleted())
    try:
        yield
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_it_works_by_itself_and_survives_what_fails(
    desk: Desk, store: Store, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = Keeper(desk)
    failed = asyncio.Event()

    async def fail() -> None:
        failed.set()
        raise ValueError("of one piece of work")

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
