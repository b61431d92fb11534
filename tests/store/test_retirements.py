"""Retirements: which tasks are due, and what a look at many that are not costs."""

from __future__ import annotations

import asyncpg
import pytest

from tasklogs_server.domain.status import BuildTransition, Facts, JobStatus
from tasklogs_server.store import Store
from tasklogs_server.store.retirements import _COUNT, _LIST, COUNTED_TASKS, OLDEST, Looked
from tests.store.logs import Connection, Log
from tests.store.test_plans import buffers_of, explain
from tests.tasks.keeper import DELETED, WEEK, age, is_there, paused

OLD_TASKS = 5_000
LOOK_TASKS = 200


async def look_at_all(store: Store) -> int:
    """Look at all tasks that can be due. Return how many looks that took."""
    looks, looked = 1, await store.retirements.look(WEEK, limit=LOOK_TASKS)
    while looked.next_position is not None:
        looked = await store.retirements.look(WEEK, looked.next_position, limit=LOOK_TASKS)
        looks += 1
    return looks


async def test_tasks_that_were_written_to_lately_are_looked_at_once(
    store: Store, sql: Connection
) -> None:
    """They were paused long ago. After an upgrade, the entries of all tasks are young."""
    await sql.execute(
        "INSERT INTO tasks (task_id, owner, name, display_name, prompt, standalone,"
        " agent_token_hash, transition, job_status, build_number, changed_at)"
        " SELECT gen_random_uuid(), 'local', i::text, '', '', false, '', 'STOP', 'SUCCEEDED', 1,"
        " clock_timestamp() - $2::interval - interval '1 s' * (i / 2)"
        " FROM generate_series(1, $1::int) i",
        OLD_TASKS,
        2 * WEEK,
    )
    await sql.execute("INSERT INTO log_heads (task_id) SELECT task_id FROM tasks")
    await sql.execute(
        "INSERT INTO log_entries (task_id, epoch, ordinal, id, revision, head, content, type)"
        " SELECT task_id, 1, i, i, i, '', '', 2 FROM tasks, generate_series(1, 2) i"
    )
    await sql.execute("ANALYZE")
    await sql.execute("SET plan_cache_mode = force_generic_plan")
    assert await store.retirements.count(WEEK) == OLD_TASKS
    assert await look_at_all(store) == OLD_TASKS // LOOK_TASKS + 1
    assert await store.retirements.count(WEEK) == 0
    # A vacuum comes when it comes. An index scan notices by itself which rows are dead.
    assert await look_at_all(store) == 1
    for statement, arguments in (
        (_LIST, (WEEK, *OLDEST, LOOK_TASKS)),
        (_COUNT, (WEEK, COUNTED_TASKS)),
    ):
        plan = await explain(sql, statement, *arguments)
        assert buffers_of(plan) < 100, plan


async def test_a_look_reads_no_task_that_was_paused_lately(store: Store, sql: Connection) -> None:
    await sql.execute(
        "INSERT INTO tasks (task_id, owner, name, display_name, prompt, standalone,"
        " agent_token_hash, transition, job_status, build_number)"
        " SELECT gen_random_uuid(), 'local', i::text, '', '', false, '', 'STOP', 'SUCCEEDED', 1"
        " FROM generate_series(1, 5000) i"
    )
    await sql.execute("ANALYZE")
    await sql.execute("SET plan_cache_mode = force_generic_plan")
    plan = await explain(sql, _LIST, WEEK, *OLDEST, LOOK_TASKS)
    assert buffers_of(plan) < 20


async def test_a_task_that_was_written_to_is_due_a_period_after_its_last_commit(
    store: Store, sql: Connection
) -> None:
    task = await paused(store, contents=2)
    await sql.execute("UPDATE tasks SET changed_at = changed_at - $1::interval", 3 * WEEK)
    await sql.execute("UPDATE tasks SET session_lost_at = session_lost_at - $1::interval", 3 * WEEK)
    await sql.execute(
        "UPDATE log_entries SET committed_at = committed_at - $1::interval", 0.9 * WEEK
    )
    await sql.execute("UPDATE log_events SET committed_at = committed_at - $1::interval", 2 * WEEK)
    last = await sql.fetchval("SELECT max(committed_at) FROM log_entries")
    for _ in range(2):
        assert await store.retirements.look(WEEK, limit=9) == Looked([], None)
    assert await sql.fetchval("SELECT changed_at FROM tasks") == last
    await age(sql, task, 0.2 * WEEK)
    assert await store.retirements.look(WEEK, limit=9) == Looked([task], None)
    assert await store.retirements.look_at(task, WEEK)


async def test_a_withdrawal_counts_as_a_commit(store: Store, sql: Connection) -> None:
    task = await paused(store, contents=2)
    await age(sql, task, 2 * WEEK)
    log = await Log.open(store, task)
    await log.write(log.commit(withdraw=True))
    await log.lose_session()
    await sql.execute("UPDATE tasks SET session_lost_at = session_lost_at - $1::interval", 2 * WEEK)
    assert await store.retirements.look(WEEK, limit=9) == Looked([], None)


async def test_the_longest_paused_tasks_come_first_and_each_once(
    store: Store, sql: Connection
) -> None:
    tasks = [await paused(store) for _ in range(5)]
    for number, task in enumerate(tasks):
        await age(sql, task, 2 * WEEK - number * WEEK / 100)
    first = await store.retirements.look(WEEK, limit=2)
    assert first.due == tasks[:2]
    assert first.next_position is not None
    second = await store.retirements.look(WEEK, first.next_position, limit=4)
    assert second == Looked(tasks[2:], None)
    listed = await store.retirements.list_(WEEK, first.next_position, limit=4)
    assert [task for _, task in listed] == tasks[2:]


async def test_a_report_between_the_look_and_the_deletion_keeps_the_task(
    store: Store, sql: Connection
) -> None:
    kept, other = await paused(store), await paused(store)
    for task in (kept, other):
        await age(sql, task, 2 * WEEK)
    assert set((await store.retirements.look(WEEK, limit=9)).due) == {kept, other}
    started = Facts(2, BuildTransition.START, JobStatus.PENDING, None, None)
    await store.tasks.change_facts(kept, lambda _: started)
    due = await store.retirements.retire([kept, other], WEEK, is_paused=lambda _: True)
    assert due == [other]
    assert await is_there(sql, kept)


async def test_a_task_that_is_not_paused_for_the_domain_is_kept(
    store: Store, sql: Connection
) -> None:
    task = await paused(store, DELETED)
    await age(sql, task, 2 * WEEK)
    assert await store.retirements.retire([task], WEEK, is_paused=lambda _: False) == []
    assert await is_there(sql, task)


@pytest.mark.parametrize("lock", ["log_heads", "tasks"])
async def test_a_commit_under_way_keeps_the_task_and_nothing_waits_for_it(
    store: Store, sql: Connection, database: str, lock: str
) -> None:
    task = await paused(store, contents=1)
    await age(sql, task, 2 * WEEK)
    other = await asyncpg.connect(database)
    try:
        async with other.transaction():
            await other.execute(f"SELECT FROM {lock} WHERE task_id = $1 FOR UPDATE", task)
            await other.execute(
                "INSERT INTO log_entries (task_id, epoch, ordinal, id, revision, head, content,"
                " type) VALUES ($1, 1, 1, 1, 3, '', '', 2)",
                task,
            )
            # Without a wait: with one, this transaction would not end before the wait does.
            assert await store.retirements.retire([task], WEEK, is_paused=lambda _: True) == []
    finally:
        await other.close()
    assert await store.retirements.retire([task], WEEK, is_paused=lambda _: True) == []
    assert await is_there(sql, task)


async def test_a_retirement_frees_the_name_and_ends_the_log(store: Store, sql: Connection) -> None:
    tasks = [await paused(store, contents=1) for _ in range(3)]
    for task in tasks:
        await age(sql, task, 2 * WEEK)
    retired = await store.retirements.retire(tasks[:2], WEEK, is_paused=lambda _: True)
    assert set(retired) == set(tasks[:2])
    for table in ("task_names", "log_heads"):
        rows = await sql.fetch(f"SELECT task_id FROM {table}")
        assert [row["task_id"] for row in rows] == [tasks[2]], table
    assert await store.tasks.token_hash(tasks[0]) is None
    assert await store.purges.count() == 2
