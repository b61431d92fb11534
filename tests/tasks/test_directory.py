"""The directory of tasks: its lists, and its notes to sessions."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from tasklogs_server.bus.notes import Moved
from tasklogs_server.domain.description import NewTask, TaskView
from tasklogs_server.domain.errors import TaskStandalone, Unauthenticated
from tasklogs_server.domain.names import TaskId, TaskName
from tasklogs_server.domain.status import TaskStatus
from tasklogs_server.limits.handshake_queue import HandshakeQueue
from tasklogs_server.store import Store
from tasklogs_server.store.task_lists import NEWEST, ListPosition
from tasklogs_server.tasks.agent_tokens import AgentTokens
from tests.ingest.desk import Desk
from tests.store.logs import new_task
from tests.tasks.keeper import PAUSED, Keeper, paused


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
