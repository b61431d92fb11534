"""Tasks: names, tokens, deletion."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import pytest

from tasklogs_server.domain.description import Description, NewTask, TaskView
from tasklogs_server.domain.errors import StoreUnavailable, TaskNameTaken, TaskNotFound
from tasklogs_server.domain.labels import LabelSelector
from tasklogs_server.domain.names import TaskId, TaskName
from tasklogs_server.domain.status import Facts
from tasklogs_server.store import Store, task_lists
from tasklogs_server.store.list_statements import ListFilter, search_end_statement
from tasklogs_server.store.purges import PurgeProgress
from tasklogs_server.store.records import EarlierCreation, Task
from tasklogs_server.store.task_lists import LIST_BYTES, NEWEST, ListPosition
from tests.store.logs import Connection, new_task


async def test_a_name_is_unique_per_owner_and_free_again_after_deletion(store: Store) -> None:
    first = await new_task(store, "one")
    with pytest.raises(TaskNameTaken):
        await new_task(store, "one")
    await store.tasks.delete(first)
    second = await new_task(store, "one")
    assert await store.tasks.resolve(TaskName("local", "one")) == second
    # The first task's rows are still stored. Their purge must not free the name of the second.
    await store.purges.purge([PurgeProgress.of(first)])
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
    page, position = await store.tasks.list_(owner=None, after=NEWEST, limit=10)
    assert (list(page), position) == ([], None)


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
    others, after = await store.tasks.list_(owner="other", after=NEWEST, limit=2)
    assert (list(others), after) == ([], None)


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


async def test_a_basic_read_selects_no_prompt(store: Store, sql: Connection, database: str) -> None:
    task_id = await _prompted(store, "a secret")
    columns = await sql.fetchval(
        "SELECT string_agg(attname, ', ') FROM pg_attribute WHERE attrelid = 'tasks'::regclass"
        " AND attnum > 0 AND NOT attisdropped AND attname <> 'prompt'"
    )
    user = f"without_prompts_{os.urandom(4).hex()}"
    await sql.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'guest'")
    await sql.execute(
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {user}"
    )
    await sql.execute(f"REVOKE SELECT ON tasks FROM {user}")
    await sql.execute(f"GRANT SELECT ({columns}) ON tasks TO {user}")
    parts = urlsplit(database)
    dsn = parts._replace(netloc=f"{user}:guest@{parts.netloc.rpartition('@')[2]}").geturl()
    reader = await Store.open(dsn, read_connections=2, lease=timedelta(seconds=30))
    try:
        for labels in ((), (LabelSelector("env", None),)):
            for owner in (None, "local"):
                await reader.tasks.list_(owner=owner, after=NEWEST, limit=9, labels=labels)
        assert (await reader.tasks.get(task_id)).prompt is None
        await reader.changes.start(TaskId(task_id), tail=1)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.tasks.get(task_id, TaskView.FULL)
    finally:
        await reader.close()
        await sql.execute(f"DROP OWNED BY {user}; DROP ROLE {user}")


async def test_a_basic_list_counts_labels_and_a_full_one_prompts_as_well(store: Store) -> None:
    labels = {f"label-{number}": "\U0001f600" * 255 for number in range(64)}
    for _ in range(40):
        await _prompted(store, "x" * 60_000, labels=labels)
    counts = {
        view: len((await store.tasks.list_(owner=None, after=NEWEST, limit=99, view=view))[0])
        for view in TaskView
    }
    # Each task has 66 KB of labels and 60 KB of prompt. A page may end with the task that fills it.
    assert counts == {TaskView.BASIC: 16, TaskView.FULL: 8}


async def test_a_task_deleted_during_a_search_for_labels_hides_no_other(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = await _prompted(store, "", labels={"wanted": ""})
    made = [await _prompted(store, "") for _ in range(2)]
    monkeypatch.setattr(task_lists, "SCAN_ROWS", 2)
    original = asyncpg.Connection.fetchrow
    end_of_search = search_end_statement(ListFilter(of_owner=True, labelled=True)).sql

    async def after_a_deletion(self: Any, statement: str, *arguments: Any) -> Any:
        if statement == end_of_search and made:
            await store.tasks.delete(made.pop())
        return await original(self, statement, *arguments)

    monkeypatch.setattr(asyncpg.Connection, "fetchrow", after_a_deletion)
    found: list[UUID] = []
    position: ListPosition | None = NEWEST
    while position is not None:
        page, position = await store.tasks.list_(
            owner="local", after=position, limit=9, labels=[LabelSelector("wanted", None)]
        )
        found += [one.task_id for one in page]
    assert found == [wanted]
    assert made == []


async def test_of_equal_creations_at_once_one_creates_on_two_servers(
    store: Store, database: str
) -> None:
    other = await Store.open(database, read_connections=4, lease=timedelta(seconds=30))
    try:
        for number in range(10):
            new = NewTask("local", f"task-{number}", request_id=UUID(int=number))
            made = await asyncio.gather(
                *(
                    one.tasks.create(uuid.uuid4(), new, agent_token_hash=b"")
                    for one in (store, other, store, other)
                )
            )
            [task] = [one for one in made if isinstance(one, Task)]
            earlier = [one for one in made if isinstance(one, EarlierCreation)]
            assert earlier == [EarlierCreation(task.task_id, new.arguments_hash)] * 3
    finally:
        await other.close()


async def test_a_creation_that_waits_for_another_too_long_can_be_retried(
    store: Store, sql: Connection
) -> None:
    new = NewTask("local", "demo", request_id=UUID(int=1))
    transaction = sql.transaction()
    await transaction.start()
    # A server that stopped before its commit.
    await sql.execute("INSERT INTO task_names VALUES ('local', 'demo', $1)", uuid.uuid4())
    try:
        with pytest.raises(StoreUnavailable):
            await store.tasks.create(uuid.uuid4(), new, agent_token_hash=b"")
    finally:
        await transaction.rollback()
    assert isinstance(await store.tasks.create(uuid.uuid4(), new, agent_token_hash=b""), Task)


async def test_a_request_id_is_stored_for_live_tasks_only(store: Store, sql: Connection) -> None:
    new = NewTask("local", "demo", request_id=UUID(int=1))
    for _ in range(3):
        task = await store.tasks.create(uuid.uuid4(), new, agent_token_hash=b"")
        assert isinstance(task, Task)
        await store.tasks.delete(task.task_id)
    assert await sql.fetchval("SELECT count(*) FROM tasks") == 3


async def test_an_update_that_fails_changes_nothing_and_updates_take_turns(
    store: Store, task: UUID
) -> None:
    def fail(_: Description) -> Description:
        raise LookupError

    def count(one: Description) -> Description:
        return Description(one.display_name + "x", {**one.labels, str(len(one.labels)): "y"})

    with pytest.raises(LookupError):
        await store.tasks.update(task, fail)
    updated = await asyncio.gather(*(store.tasks.update(task, count) for _ in range(20)))
    assert sorted(len(one.labels or ()) for one in updated) == list(range(1, 21))
    assert (await store.tasks.get(task)).display_name == "x" * 20
    with pytest.raises(TaskNotFound):
        await store.tasks.update(uuid.uuid4(), count)


async def _prompted(
    store: Store, prompt: str, labels: Mapping[str, str] = MappingProxyType({})
) -> UUID:
    task_id = uuid.uuid4()
    new = NewTask("local", task_id.hex, prompt=prompt, labels=labels)
    await store.tasks.create(task_id, new, agent_token_hash=b"")
    return task_id
