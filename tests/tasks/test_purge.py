"""The purge of deleted tasks: it is fair, waits for no lock, and says what is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from tasklogs_server.bus.notes import Deleted
from tasklogs_server.domain.errors import LogCorrupt, StoreUnavailable, TaskNotFound
from tasklogs_server.domain.names import TaskId
from tasklogs_server.store import Store
from tasklogs_server.store.purges import ChunkOutcome, PurgeProgress, Purges
from tests.ingest.desk import Desk
from tests.store.logs import Connection
from tests.support.fixtures.conditions import until
from tests.tasks.keeper import CODES, Keeper, locked, paused, refuse

MANY = 3_000


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Sequence[UUID]:
    """The task of each chunk that is purged, in order."""
    taken: list[UUID] = []
    original = Purges.purge

    async def noted(
        self: Purges, tasks: Sequence[PurgeProgress], **options: int
    ) -> Sequence[ChunkOutcome]:
        taken.extend(one.task_id for one in tasks)
        return await original(self, tasks, **options)

    monkeypatch.setattr(Purges, "purge", noted)
    return taken


async def deleted_tasks(sql: Connection, count: int, *, entries: int = 1) -> list[UUID]:
    """Create deleted tasks with rows, as a server that has died left them, in order of deletion."""
    rows = await sql.fetch(
        "INSERT INTO tasks (task_id, owner, name, display_name, prompt, standalone,"
        " agent_token_hash, deleted_at)"
        " SELECT gen_random_uuid(), 'local', i::text, '', '', false, '',"
        " clock_timestamp() + interval '1 us' * i FROM generate_series(1, $1::int) i"
        " RETURNING task_id",
        count,
    )
    tasks = [row["task_id"] for row in rows]
    await sql.execute(
        "INSERT INTO log_entries (task_id, epoch, ordinal, id, revision, head, content, type)"
        " SELECT task_id, 1, i, i, i, '', '', 2"
        " FROM unnest($1::uuid[]) task_id, generate_series(1, $2::int) i",
        tasks,
        entries,
    )
    return tasks


async def is_left(sql: Connection, tasks: int) -> bool:
    """Whether so many deleted tasks have rows."""
    count = await sql.fetchval("SELECT count(*) FROM tasks WHERE deleted_at IS NOT NULL")
    return bool(count == tasks)


@asynccontextmanager
async def purging(keeper: Keeper) -> AsyncIterator[None]:
    """Purge deleted tasks as long as the block lasts."""
    running = asyncio.create_task(keeper.purge.run())
    try:
        yield
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_one_round_purges_all_that_was_deleted(
    keeper: Keeper, sql: Connection, turns: Sequence[UUID]
) -> None:
    """The clock stands still: nothing waits for the next sweep."""
    await deleted_tasks(sql, MANY)
    async with purging(keeper):
        await until(lambda: is_left(sql, 0))
        assert len(turns) == MANY
        await until(lambda: keeper.purge.backlog == 0)
    assert await sql.fetchval("SELECT count(*) FROM log_entries") == 0


async def test_a_deletion_is_purged_at_once(keeper: Keeper, store: Store, sql: Connection) -> None:
    async with purging(keeper):
        for _ in range(3):
            task = await paused(store, contents=3)
            await keeper.directory.delete(TaskId(task))
            await until(lambda: is_left(sql, 0))


async def test_tasks_that_cannot_be_purged_hold_up_no_other(
    keeper: Keeper, sql: Connection, turns: Sequence[UUID]
) -> None:
    bad = await deleted_tasks(sql, 300)
    good = await deleted_tasks(sql, 20)
    await refuse(sql, "DELETE", "log_entries", bad, "23514")
    with capture_logs() as logged:
        async with purging(keeper):
            await until(lambda: is_left(sql, 300))
            await until(lambda: keeper.purge.set_aside == 300)
            assert keeper.purge.backlog >= 300
    # Each was tried once alone, because the clock stood still, and once with others.
    assert max(turns.count(task) for task in (*bad, *good)) == 2
    assert [one["event"] for one in logged].count("task.not_purged") == 300


@CODES
async def test_rows_that_cannot_be_deleted_do_not_stop_the_purge_of_other_tasks(
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


@pytest.mark.parametrize("table", ["tasks", "log_entries"])
async def test_a_locked_task_is_tried_again_and_holds_up_no_other(
    keeper: Keeper, sql: Connection, database: str, table: str, turns: Sequence[UUID]
) -> None:
    [task, *_] = await deleted_tasks(sql, 5, entries=3)
    async with purging(keeper):
        async with locked(database, table, task):
            await until(lambda: is_left(sql, 1))
            await until(lambda: keeper.purge.set_aside == 1)
            entries = await sql.fetchval("SELECT count(*) FROM log_entries")
            assert entries == (1 if table == "log_entries" else 3)
            keeper.now += 1
            keeper.purge.deleted(task)  # wakes the purge, which knows the task
            await until(lambda: turns.count(task) == 2)
        keeper.now += 600
        keeper.purge.deleted(task)
        await until(lambda: is_left(sql, 0))
        await until(lambda: keeper.purge.set_aside == 0)


async def test_a_task_that_stays_locked_is_logged_once(
    keeper: Keeper, sql: Connection, database: str, turns: Sequence[UUID]
) -> None:
    [task] = await deleted_tasks(sql, 1)
    with capture_logs() as logged:
        async with purging(keeper), locked(database, "log_entries", task):
            for times in range(1, 10):
                await until(lambda times=times: turns.count(task) == times)  # type: ignore[misc]
                await until(lambda: keeper.purge.set_aside == 1)
                keeper.now += 2 ** (times - 1)
                keeper.purge.deleted(UUID(int=times))
    [one] = logged
    assert (one["event"], one["task"], one["work"]) == ("task.blocked", str(task), "purge")


async def test_small_tasks_wait_for_no_large_ones(
    keeper: Keeper, sql: Connection, turns: Sequence[UUID]
) -> None:
    large = await deleted_tasks(sql, 3, entries=10_000)
    small = await deleted_tasks(sql, 30)
    async with purging(keeper):
        await until(lambda: is_left(sql, 0))
    last_small = max(turns.index(task) for task in small)
    assert last_small <= 2 * len(small) + 2 * len(large)
    # The large ones take turns, too.
    between = [task for task in turns[last_small + 1 :] if task in large][:12]
    assert {between.count(task) for task in large} == {4}


async def test_the_purge_ends_the_stream_of_a_task_whose_deletion_was_cut_off(
    keeper: Keeper, desk: Desk, task: UUID
) -> None:
    async with desk.agent(task) as agent:
        # As if the caller left, or the connection broke, just after the commit.
        await desk.store.tasks.delete(task)
        async with purging(keeper):
            await asyncio.wait_for(agent.has_ended.wait(), 10)
        assert isinstance(agent.error, TaskNotFound)
    assert Deleted(task) in keeper.notes


async def test_the_purge_goes_on_after_errors(
    keeper: Keeper, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deleted_tasks(sql, 3)
    purge, count = Purges.purge, Purges.count
    failures: list[Exception] = [StoreUnavailable(timedelta(seconds=1)), ValueError()]

    async def failing_count(self: Purges) -> int:
        if len(failures) == 2:
            raise failures.pop()
        return await count(self)

    async def failing_purge(
        self: Purges, tasks: Sequence[PurgeProgress], **options: int
    ) -> Sequence[ChunkOutcome]:
        if failures:
            raise failures.pop()
        return await purge(self, tasks, **options)

    monkeypatch.setattr(Purges, "count", failing_count)
    monkeypatch.setattr(Purges, "purge", failing_purge)
    with capture_logs() as logged:
        async with purging(keeper):
            await until(lambda: len(failures) <= 1)
            keeper.purge.deleted(UUID(int=1))
            await until(lambda: not failures)
            keeper.purge.deleted(UUID(int=2))
            await until(lambda: is_left(sql, 0))
    assert [one["event"] for one in logged] == ["purge.failed", "purge.postponed"]


async def test_a_store_that_stays_away_is_logged_once(
    keeper: Keeper, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deleted_tasks(sql, 1)
    monkeypatch.setattr("tasklogs_server.tasks.purge._RETRY_SECONDS", 0.01)
    purge, attempts = Purges.purge, 0

    async def purge_at_the_fourth_attempt(
        self: Purges, tasks: Sequence[PurgeProgress], **options: int
    ) -> Sequence[ChunkOutcome]:
        nonlocal attempts
        attempts += 1
        if attempts <= 3:
            raise StoreUnavailable(timedelta(seconds=1))
        return await purge(self, tasks, **options)

    monkeypatch.setattr(Purges, "purge", purge_at_the_fourth_attempt)
    with capture_logs() as logged:
        async with purging(keeper):
            await until(lambda: is_left(sql, 0))
    assert attempts > 3
    assert [one["event"] for one in logged] == ["purge.postponed"]


async def test_a_sweep_goes_on_behind_many_tasks_that_are_set_aside(
    keeper: Keeper, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasklogs_server.tasks.purge._PAGE_TASKS", 5)
    bad = await deleted_tasks(sql, 20)
    await refuse(sql, "DELETE", "log_entries", bad, "23514")
    with capture_logs() as logged:

        def tried(times: int) -> bool:
            return [one["event"] for one in logged].count("task.not_purged") == times * len(bad)

        async with purging(keeper):
            for times in range(1, 7):
                await until(lambda times=times: tried(times))  # type: ignore[misc]
                keeper.now += 2 ** (times - 1)
                keeper.purge.deleted(UUID(int=times))
            await until(lambda: tried(7))
            await deleted_tasks(sql, 1)
            keeper.now += 31  # a sweep is due, and no attempt on the others
            keeper.purge.deleted(UUID(int=0))
            await until(lambda: is_left(sql, len(bad)))
        assert tried(7)


async def test_two_servers_share_a_backlog(
    keeper: Keeper, desk: Desk, sql: Connection, database: str, turns: Sequence[UUID]
) -> None:
    store = await Store.open(database, read_connections=2, lease=timedelta(seconds=30))
    tasks = await deleted_tasks(sql, 300)
    other = Keeper(desk, purges=store.purges)
    try:
        with capture_logs() as logged:
            async with purging(keeper), purging(other):
                await until(lambda: is_left(sql, 0))
        assert logged == []
        assert len(turns) <= 2 * len(tasks)
    finally:
        await store.close()


async def test_a_deleted_task_that_cannot_be_read_does_not_stop_the_purge_of_large_ones(
    keeper: Keeper, store: Store, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreadable(self: Purges, *_: object, **__: object) -> int:
        raise LogCorrupt

    monkeypatch.setattr(Purges, "deleted", unreadable)
    monkeypatch.setattr(Purges, "count", unreadable)
    monkeypatch.setattr("tasklogs_server.tasks.purge._RETRY_SECONDS", 0.01)
    [large] = await deleted_tasks(sql, 1, entries=2_000)
    keeper.purge.deleted(large)
    async with purging(keeper):
        await until(lambda: is_left(sql, 0))
