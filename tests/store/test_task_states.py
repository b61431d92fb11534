"""States of tasks and versions of logs: every change of what a read returns changes the version."""

from __future__ import annotations

import ast
import re
import uuid
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import tasklogs_server
from tasklogs_server.domain.errors import TaskNotFound
from tasklogs_server.domain.names import TaskId, TaskName, TaskRef
from tasklogs_server.domain.status import BuildTransition, Facts, JobStatus
from tasklogs_server.store import Store
from tasklogs_server.store.commit_statements import COMMIT
from tasklogs_server.store.evictions import LogLimits
from tasklogs_server.store.task_states import _STATES, AskedState, Found, LogVersion, TaskState
from tests.store.logs import Connection, Log, entry_row, new_task
from tests.store.test_plans import buffers_of, explain, many_tasks, nodes

_PACKAGE = Path(tasklogs_server.__file__).parent
_WRITES = re.compile(r"(?:INSERT INTO|UPDATE|DELETE FROM)\s+(log_\w+|\{table\}|TABLE\b)")
_HEAD = re.compile(r"UPDATE\s+log_heads\b")


async def found(store: Store, *refs: TaskRef) -> list[Found]:
    return list(await store.states.read(lambda: [AskedState(ref, None) for ref in refs]))


async def state_of(log: Log) -> TaskState:
    [state] = await found(log.store, TaskId(log.task_id))
    assert isinstance(state, TaskState)
    return state


async def fold(log: Log) -> None:
    tail = log.head.tail
    assert tail is not None
    row = entry_row(1, 39, tail.revision, b"x!")
    generation = log.store.generations.current
    await log.store.writes.fold(
        log.task_id, generation=generation, fence=log.fence, revision=tail.revision, row=row
    )


async def evict(log: Log) -> None:
    await log.store.evictions.evict(log.task_id, LogLimits(16, 1 << 30, timedelta(0)))


async def confirm(log: Log) -> None:
    at = datetime(2100, 1, 1, tzinfo=UTC)
    generation = log.store.generations.current
    await log.store.writes.confirm([(log.task_id, log.fence, at)], generation=generation)


async def commit(log: Log, **changes: Any) -> None:
    await log.write(log.commit(**changes))


async def open_session(log: Log) -> None:
    await Log.open(log.store, log.task_id)


async def rotate(log: Log) -> None:
    await log.store.tasks.rotate_token(log.task_id, bytes(32))


WRITES: dict[str, Callable[[Log], Awaitable[object]]] = {
    "an entry": lambda log: commit(log, contents=[b"y"]),
    "a part": lambda log: commit(log, grow=b"y", keep=1),
    "a withdrawal": lambda log: commit(log, withdraw=True),
    "an epoch": lambda log: commit(log, open_epoch=True),
    "a fold": fold,
    "an eviction": evict,
    "a confirmed time": confirm,
    "a session": open_session,
    "a token": rotate,
}


@pytest.mark.parametrize("what", WRITES)
async def test_every_write_of_a_log_changes_its_version(log: Log, what: str) -> None:
    await log.write(log.commit([b"x"] * 40, open_epoch=True))
    await log.write(log.commit(grow=b"!", keep=1))
    before = await state_of(log)
    assert (await state_of(log)).version == before.version
    await WRITES[what](log)
    assert (await state_of(log)).version != before.version


def strings_of(path: Path) -> Iterator[str]:
    """Yield the strings of a module, f-strings with the names of what is filled in."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield ast.unparse(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_statement_that_writes_rows_of_a_log_writes_its_head() -> None:
    """A version would not tell otherwise. Only purges do not: their tasks are deleted."""
    writing: set[str] = set()
    for path in _PACKAGE.rglob("*.py"):
        if "migrations" in path.parts or path.name == "purges.py":
            continue
        texts = list(strings_of(path))
        if path.name == "commit_statements.py":
            # Pieces, joined to this. On Citus they follow the head's change in its transaction.
            texts = [COMMIT.sql]
        for text in texts:
            written = set(_WRITES.findall(text)) - {"log_heads"}
            if written:
                writing.add(path.name)
                assert _HEAD.search(text), f"{path.name} writes {written} and not the head"
    assert writing == {"commit_statements.py", "evictions.py", "log_writes.py"}
    purge = (_PACKAGE / "store/purges.py").read_text()
    assert "WHERE task_id = $1 AND deleted_at IS NOT NULL FOR UPDATE SKIP LOCKED" in purge


async def test_states_are_found_by_id_and_name_for_those_who_may_see_the_task(store: Store) -> None:
    task_id, other = await new_task(store, "named"), await new_task(store)
    states = await found(
        store,
        TaskName("local", "named"),
        TaskId(other, "somebody"),
        TaskId(task_id, "local"),
        TaskName("somebody", "named"),
        TaskId(uuid.uuid4()),
        TaskId(other),
    )
    ids = [one.task_id if isinstance(one, TaskState) else type(one) for one in states]
    assert ids == [task_id, TaskNotFound, task_id, TaskNotFound, TaskNotFound, other]


async def test_a_deleted_task_has_no_state(store: Store, log: Log) -> None:
    await store.tasks.delete(log.task_id)
    [gone] = await found(store, TaskId(log.task_id))
    assert isinstance(gone, TaskNotFound)


async def test_a_state_that_has_not_changed_is_the_same_object(store: Store, log: Log) -> None:
    known = await state_of(log)
    asked = [AskedState(TaskId(log.task_id), known)]
    [again] = await store.states.read(lambda: asked)
    assert again is known
    await store.tasks.change_facts(
        log.task_id, lambda _: Facts(1, BuildTransition.STOP, JobStatus.SUCCEEDED, None, None)
    )
    [changed] = await store.states.read(lambda: asked)
    assert isinstance(changed, TaskState)
    assert changed.detail != known.detail
    assert changed.version == known.version


async def test_a_state_and_a_page_that_are_read_together_have_one_version(
    log: Log, sql: Connection
) -> None:
    await log.write(log.commit([b"a"], open_epoch=True))
    version = (await log.page()).state.version
    assert version == (await state_of(log)).version
    assert version.generation == log.store.generations.current
    assert version.serves_since == await sql.fetchval("SELECT pg_postmaster_start_time()")
    assert LogVersion._fields == (
        *("generation", "serves_since", "head_xmin", "epoch", "revision"),
    )


async def test_a_locked_row_delays_no_check(store: Store, log: Log, sql: Connection) -> None:
    async with sql.transaction():
        await sql.execute("SELECT FROM tasks WHERE task_id = $1 FOR UPDATE", log.task_id)
        await sql.execute("SELECT FROM log_heads WHERE task_id = $1 FOR UPDATE", log.task_id)
        assert isinstance(await state_of(log), TaskState)


async def test_a_check_reads_only_the_rows_of_its_tasks(store: Store, sql: Connection) -> None:
    await many_tasks(sql, "local", 5000)
    task_ids = [row["task_id"] for row in await sql.fetch("SELECT task_id FROM tasks LIMIT 30")]
    await sql.execute("ANALYZE")
    nobody = [None] * len(task_ids)
    terms = store.states._lease_terms
    plan = await explain(sql, _STATES, *terms, list(map(str, task_ids)), nobody, nobody)
    scanned = {one.get("Relation Name") for one in nodes(plan) if one["Node Type"] == "Seq Scan"}
    assert not scanned & {"tasks", "log_heads"}
    assert buffers_of(plan) <= 10 * len(task_ids)
