"""The directory of tasks: its lists, its deletions, and its notes to sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import pytest

from tasklogs_server.bus.notes import Deleted, Moved
from tasklogs_server.domain.description import NewTask, TaskView
from tasklogs_server.domain.errors import TaskNotFound, TaskStandalone, Unauthenticated
from tasklogs_server.domain.names import TaskId, TaskName
from tasklogs_server.domain.status import TaskStatus
from tasklogs_server.limits.handshake_queue import HandshakeQueue
from tasklogs_server.store import Store
from tasklogs_server.store.task_lists import NEWEST, ListPosition
from tasklogs_server.tasks.agent_tokens import AgentTokens
from tests.ingest.desk import Desk
from tests.store.logs import Connection, new_task
from tests.support.fixtures.conditions import until
from tests.tasks.keeper import CODES, PAUSED, WEEK, Keeper, age, is_there, paused, refuse


async def test_the_status_filter_empties_no_page(keeper: Keeper, store: Store) -> None:
    wanted = await paused(store)
    for _ in range(3):
        await new_task(store)
    found: list[UUID] = []
    sizes = []
    position: ListPosition | None = NEWEST
    while position is not None:
        tasks, position = await keeper.directory.list_(
            owner="local", status=TaskStatus.PAUSED, after=position, limit=2
        )
        found += [task.task_id for task in tasks]
        sizes.append(len(tasks))
    assert found == [wanted]
    assert sizes == [1]


async def test_a_new_task_comes_with_a_token_that_opens_it(keeper: Keeper, store: Store) -> None:
    task, token = await keeper.directory.create(
        NewTask("local", "demo", display_name="Demo", prompt="do it")
    )
    agent = await AgentTokens(store.tasks, HandshakeQueue(1, timedelta(seconds=5))).agent(token)
    assert agent.task_id == task.task_id
    assert await keeper.directory.get(TaskName("local", "demo"), TaskView.FULL) == task


async def test_a_report_changes_the_facts_and_wakes_followers(keeper: Keeper, task: UUID) -> None:
    changed = await keeper.directory.report(TaskId(task), lambda _: PAUSED)
    assert changed.facts == PAUSED
    assert keeper.notes == [Moved(task)]


async def test_a_report_on_a_standalone_task_is_refused(keeper: Keeper, store: Store) -> None:
    task = await new_task(store, standalone=True)
    before = (await store.tasks.get(task)).facts
    with pytest.raises(TaskStandalone):
        await keeper.directory.report(TaskId(task), lambda _: PAUSED)
    assert (await store.tasks.get(task)).facts == before
    assert keeper.notes == []


async def test_a_rotation_ends_the_stream_of_the_old_token(
    keeper: Keeper, desk: Desk, task: UUID
) -> None:
    async with desk.agent(task) as agent:
        await keeper.directory.rotate_agent_token(TaskId(task))
        await asyncio.wait_for(agent.has_ended.wait(), 10)
    assert isinstance(agent.error, Unauthenticated)


async def test_at_most_the_limit_is_retired_and_the_longest_paused_first(
    keeper: Keeper, store: Store, sql: Connection
) -> None:
    tasks = [await paused(store) for _ in range(5)]
    for number, task in enumerate(tasks):
        await age(sql, task, 2 * WEEK - number * timedelta(hours=1))
    assert await keeper.directory.retire_paused(WEEK, limit=2) == 2
    assert [await is_there(sql, task) for task in tasks] == [False, False, True, True, True]


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


@asynccontextmanager
async def purging(keeper: Keeper) -> AsyncIterator[None]:
    """Purge deleted tasks as long as the block lasts."""
    running = asyncio.create_task(keeper.directory.purge_deleted())
    try:
        yield
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.wait([running])
