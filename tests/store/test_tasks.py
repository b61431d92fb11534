"""Tasks: names, tokens, deletion."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from uuid import UUID

import pytest

from tasklogs_server.domain.description import NewTask, TaskView
from tasklogs_server.domain.errors import TaskNameTaken, TaskNotFound
from tasklogs_server.domain.names import TaskName
from tasklogs_server.domain.status import Facts
from tasklogs_server.store import Store
from tasklogs_server.store.tasks import LIST_BYTES, NEWEST, ListPosition
from tests.store.logs import Connection, Log, new_task


async def test_a_name_is_unique_per_owner_and_free_again_after_deletion(store: Store) -> None:
    first = await new_task(store, "one")
    with pytest.raises(TaskNameTaken):
        await new_task(store, "one")
    await store.tasks.delete(first)
    second = await new_task(store, "one")
    assert await store.tasks.resolve(TaskName("local", "one")) == second
    # The first task's rows are still stored. Their purge must not free the name of the second.
    await store.tasks.purge(first)
    assert await store.tasks.resolve(TaskName("local", "one")) == second


async def test_of_two_tasks_created_at_once_with_one_name_one_succeeds(store: Store) -> None:
    results = await asyncio.gather(
        *(new_task(store, "contested") for _ in range(4)), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in results) == ["TaskNameTaken"] * 3 + ["UUID"]


async def test_a_deleted_task_is_gone_at_once(store: Store, task: UUID) -> None:
    await store.tasks.delete(task)
    assert await store.tasks.token_hash(task) is None
    for call in (
        store.tasks.get(task),
        store.tasks.delete(task),
        store.tasks.rotate_token(task, b""),
        store.tasks.change_facts(task, lambda facts: facts),
    ):
        with pytest.raises(TaskNotFound):
            await call
    assert await store.tasks.list_(owner=None, after=NEWEST, limit=10) == ([], None)


async def test_a_purge_deletes_the_rows_of_one_task_in_chunks(
    store: Store, log: Log, sql: Connection
) -> None:
    other = await Log.open(store, await new_task(store))
    for one in (log, other):
        await one.write(one.commit([b"x"] * 7, open_epoch=True))
        await one.write(one.commit(grow=b"y", keep=1))
    await store.tasks.delete(log.task_id)
    assert list(await store.tasks.deleted()) == [log.task_id]
    left = []
    while not await store.tasks.purge(log.task_id, chunk_rows=3):
        left.append(
            await sql.fetchval("SELECT count(*) FROM log_entries WHERE task_id = $1", log.task_id)
        )
    assert left == sorted(left, reverse=True)
    assert len(set(left)) > 2
    assert list(await store.tasks.deleted()) == []
    for table in ("log_entries", "log_tail_parts", "log_events", "log_heads", "tasks"):
        rows = await sql.fetch(f"SELECT DISTINCT task_id FROM {table}")
        assert [row["task_id"] for row in rows] == [other.task_id], table
    assert await other.contents() == ["x"] * 6 + ["xy"]


async def test_a_change_of_facts_that_fails_changes_nothing(store: Store, task: UUID) -> None:
    def fail(facts: Facts) -> Facts:
        raise LookupError

    with pytest.raises(LookupError):
        await store.tasks.change_facts(task, fail)
    assert (await store.tasks.get(task)).facts.build_number is None


async def test_changes_of_facts_take_turns(store: Store, task: UUID) -> None:
    def count(facts: Facts) -> Facts:
        return replace(facts, build_number=(facts.build_number or 0) + 1)

    await asyncio.gather(*(store.tasks.change_facts(task, count) for _ in range(20)))
    assert (await store.tasks.get(task)).facts.build_number == 20


async def test_a_list_continues_after_its_position(store: Store) -> None:
    made = [await new_task(store) for _ in range(5)]
    seen: list[UUID] = []
    position = NEWEST
    while page := (await store.tasks.list_(owner="local", after=position, limit=2))[0]:
        seen += [one.task_id for one in page]
        position = (page[-1].created_at, page[-1].task_id)
    assert seen == made[::-1]
    assert await store.tasks.list_(owner="other", after=NEWEST, limit=2) == ([], None)


async def test_an_unknown_task_id_is_not_found(store: Store) -> None:
    with pytest.raises(TaskNotFound):
        await store.tasks.get(uuid.uuid4())
    with pytest.raises(TaskNotFound):
        await store.tasks.resolve(TaskName("local", "nobody"))


async def test_a_list_page_ends_when_prompts_fill_it_and_the_next_one_continues_there(
    store: Store,
) -> None:
    made = [await _prompted(store, "x" * 60_000) for _ in range(40)]
    seen: list[UUID] = []
    position: ListPosition | None = NEWEST
    while position is not None:
        page, position = await store.tasks.list_(
            owner=None, after=position, limit=1000, view=TaskView.FULL
        )
        assert sum(len(one.prompt or "") for one in page) < LIST_BYTES + 64 * 1024
        seen += [one.task_id for one in page]
    assert seen == made[::-1]


async def _prompted(store: Store, prompt: str) -> UUID:
    task_id = uuid.uuid4()
    new = NewTask("local", task_id.hex, prompt=prompt)
    await store.tasks.create(task_id, new, agent_token_hash=b"")
    return task_id
