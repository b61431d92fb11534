"""The audit returns exactly the sessions that their rows do not name. It locks no row."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import asyncpg
import pytest

from tasklogs_server.domain.errors import SessionSuperseded
from tasklogs_server.domain.reports import report_build
from tasklogs_server.domain.status import BuildTransition, Facts, JobStatus
from tasklogs_server.store import Store
from tasklogs_server.store.connections import Connection as StoreConnection
from tasklogs_server.store.session_audit import _AUDIT, AuditedTask, HeldSession, audit
from tests.store.logs import Connection, Log, new_task
from tests.store.test_plans import buffers_of, explain, many_tasks, nodes
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until


def held_by(log: Log, build_number: int | None = None) -> HeldSession:
    return HeldSession(log.task_id, log.fence, log.head.revision, build_number)


def start(number: int) -> Callable[[Facts], Facts]:
    return lambda facts: report_build(facts, number, BuildTransition.START, JobStatus.SUCCEEDED)


async def test_a_session_that_its_row_names_is_not_returned(store: Store, log: Log) -> None:
    await log.write(log.commit([b"a"], open_epoch=True))
    await store.tasks.change_facts(log.task_id, start(3))
    earlier = HeldSession(log.task_id, log.fence, log.head.revision - 1, 3)
    for held in (held_by(log), held_by(log, 3), held_by(log, 4), earlier):
        assert not await store.sessions.audit([held])


async def test_each_end_elsewhere_is_returned_for_its_session_only(
    store: Store, sql: Connection
) -> None:
    logs = {name: await Log.open(store, await new_task(store)) for name in ENDS}
    untouched = await Log.open(store, await new_task(store))
    for name, end in ENDS.items():
        await end(store, sql, logs[name])
    found = await store.sessions.audit(
        [held_by(one, build_number=1) for one in (*logs.values(), untouched)]
    )
    by_task = {one.task_id: one for one in found}
    assert by_task.keys() == {one.task_id for one in logs.values()}
    assert by_task[logs["deleted"].task_id].is_deleted
    later = by_task[logs["a later session"].task_id].session_fence
    assert later is not None
    assert later > logs["a later session"].fence
    assert by_task[logs["a newer build"].task_id].start_build == 2
    assert by_task[logs["a rotated token"].task_id].token_hash == b"new"


async def _open_later(store: Store, sql: Connection, log: Log) -> None:
    await Log.open(store, log.task_id)


async def _go_back(store: Store, sql: Connection, log: Log) -> None:
    await log.write(log.commit([b"a"], open_epoch=True))
    await sql.execute(
        "UPDATE log_heads SET revision = revision - 1 WHERE task_id = $1", log.task_id
    )


ENDS: dict[str, Callable[[Store, Connection, Log], Awaitable[None]]] = {
    "deleted": lambda store, _, log: store.tasks.delete(log.task_id),
    "a later session": _open_later,
    "a newer build": lambda store, _, log: store.tasks.change_facts(log.task_id, start(2)),
    "a rotated token": lambda store, _, log: store.tasks.rotate_token(log.task_id, b"new"),
    "a store that went back": _go_back,
}


@pytest.mark.parametrize("table", ["tasks", "log_heads"])
async def test_a_locked_row_does_not_delay_it(
    store: Store, sql: Connection, log: Log, table: str
) -> None:
    async with sql.transaction():
        await sql.execute(f"SELECT FROM {table} WHERE task_id = $1 FOR UPDATE", log.task_id)
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert not await store.sessions.audit([held_by(log)])


async def test_it_looks_up_each_task_by_its_key(store: Store, sql: Connection) -> None:
    await many_tasks(sql, "local", 20_000)
    tasks: list[UUID] = [
        row["task_id"] for row in await sql.fetch("SELECT task_id FROM tasks LIMIT 1000")
    ]
    arrays = ([str(one) for one in tasks], [0] * 1000, [0] * 1000, [None] * 1000)
    for mode in ("force_generic_plan", "force_custom_plan"):
        await sql.execute(f"SET plan_cache_mode = {mode}")
        plan = await explain(sql, _AUDIT, *arrays)
        assert "Seq Scan" not in {node["Node Type"] for node in nodes(plan)}
        assert buffers_of(plan) <= 8 * 1000


async def test_a_report_waits_for_a_rotation_and_then_sees_its_fence(
    store: Store, sql: Connection, log: Log
) -> None:
    """A statement that joined the head to the locked row would return the fence before it."""
    async with sql.transaction():
        await sql.execute(
            "UPDATE tasks SET agent_token_hash = 'new' WHERE task_id = $1", log.task_id
        )
        await sql.execute("UPDATE log_heads SET fence = fence + 1 WHERE task_id = $1", log.task_id)
        report = store.tasks.change_facts(log.task_id, start(1), fence=log.fence)
        reporting = asyncio.create_task(report)
        await until(lambda: _is_waiting(sql))
    with pytest.raises(SessionSuperseded):
        await reporting
    assert (await store.tasks.get(log.task_id)).facts.build_number is None


async def _is_waiting(sql: Connection) -> bool:
    await sql.execute("SELECT pg_stat_clear_snapshot()")  # it is kept for a transaction
    return bool(
        await sql.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
    )


async def test_a_row_that_cannot_be_read_keeps_no_other_session_from_the_audit(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = [await Log.open(store, await new_task(store)) for _ in range(5)]
    bad, ended = logs[1], logs[3]
    await Log.open(store, ended.task_id)  # another session takes the task

    async def unless_bad(
        connection: StoreConnection, held: Sequence[HeldSession]
    ) -> Sequence[AuditedTask]:
        if any(one.task_id == bad.task_id for one in held):
            raise asyncpg.DataCorruptedError
        return await audit(connection, held)

    monkeypatch.setattr("tasklogs_server.store.sessions.audit", unless_bad)
    found = await store.sessions.audit([held_by(one) for one in logs])
    assert [one.task_id for one in found] == [ended.task_id]
