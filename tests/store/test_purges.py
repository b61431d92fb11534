"""Purges: chunks, locked rows, and what a chunk costs."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest

from tasklogs_server.store import Store
from tasklogs_server.store.purges import (
    _CHUNK,
    _DELETED,
    CHUNK_ROWS,
    ChunkOutcome,
    PurgeProgress,
    arguments_of,
)
from tests.store.logs import ENTRY_COLUMNS, Connection, Log, entry_record, entry_row, new_task
from tests.store.test_plans import buffers_of, explain

TABLES = ("log_entries", "log_tail_parts", "log_events")


async def rows_of(sql: Connection, task_id: UUID, table: str) -> int:
    count: int = await sql.fetchval(f"SELECT count(*) FROM {table} WHERE task_id = $1", task_id)
    return count


async def purge_one(
    store: Store, progress: PurgeProgress, *, chunk_rows: int = CHUNK_ROWS
) -> ChunkOutcome:
    [outcome] = await store.purges.purge([progress], chunk_rows=chunk_rows)
    return outcome


async def purge_all(store: Store, task_id: UUID, *, chunk_rows: int = CHUNK_ROWS) -> int:
    """Purge until nothing is left; return the number of chunks."""
    progress, chunks = PurgeProgress.of(task_id), 1
    while await purge_one(store, progress, chunk_rows=chunk_rows) is not ChunkOutcome.GONE:
        chunks += 1
    return chunks


async def fill(sql: Connection, task_id: UUID, entries: int, *, content: bytes = b"x" * 80) -> None:
    await sql.copy_records_to_table(
        "log_entries",
        records=[
            entry_record(task_id, entry_row(1, number, number + 2, content))
            for number in range(entries)
        ],
        columns=ENTRY_COLUMNS,
    )


async def filled(store: Store) -> Log:
    """A log with rows in every table."""
    log = await Log.open(store, await new_task(store))
    for _ in range(2):
        await log.write(log.commit([b"x"] * 7, open_epoch=True))
    for _ in range(5):
        await log.write(log.commit(grow=b"y", keep=1))
    return log


async def test_a_purge_deletes_the_rows_of_one_task_in_chunks(
    store: Store, sql: Connection
) -> None:
    log, other = await filled(store), await filled(store)
    await store.tasks.delete(log.task_id)
    [(_, deleted)] = await store.purges.deleted(limit=9)
    assert deleted == log.task_id
    assert await store.purges.count() == 1
    progress = PurgeProgress.of(log.task_id)
    left = []
    while await purge_one(store, progress, chunk_rows=3) is ChunkOutcome.MORE:
        left.append(await rows_of(sql, log.task_id, "log_entries"))
    assert left == [11, 8, 5, 2]
    assert await store.purges.deleted(limit=9) == []
    assert await store.purges.count() == 0
    for table in (*TABLES, "log_heads", "tasks", "task_names"):
        rows = await sql.fetch(f"SELECT DISTINCT task_id FROM {table}")
        assert [row["task_id"] for row in rows] == [other.task_id], table
    assert await other.contents() == ["x"] * 6 + ["xy"]


async def test_a_small_task_is_purged_by_one_statement(store: Store, sql: Connection) -> None:
    log = await filled(store)
    await store.tasks.delete(log.task_id)
    assert await purge_all(store, log.task_id) == 1


async def test_the_chunks_of_several_tasks_are_deleted_in_one_transaction(
    store: Store, sql: Connection
) -> None:
    logs = [await filled(store) for _ in range(3)]
    for log in logs[:2]:
        await store.tasks.delete(log.task_id)
    tasks = [PurgeProgress.of(log.task_id) for log in logs]
    outcomes = await store.purges.purge(tasks, chunk_rows=10)
    assert outcomes == [ChunkOutcome.MORE, ChunkOutcome.MORE, ChunkOutcome.GONE]
    rows = [await rows_of(sql, log.task_id, "log_entries") for log in logs]
    assert rows == [4, 4, 14]
    outcomes = await store.purges.purge(tasks[:2], chunk_rows=10)
    assert outcomes == [ChunkOutcome.GONE, ChunkOutcome.GONE]


async def test_a_task_that_was_not_deleted_is_not_purged(
    store: Store, log: Log, sql: Connection
) -> None:
    await log.write(log.commit([b"x"] * 3, open_epoch=True))
    assert await purge_one(store, PurgeProgress.of(log.task_id)) is ChunkOutcome.GONE
    assert await log.contents() == ["x"] * 3


async def test_a_chunk_is_bounded_by_bytes(store: Store, task: UUID, sql: Connection) -> None:
    await fill(sql, task, 12, content=b"x" * (1 << 20))
    await store.tasks.delete(task)
    progress, left = PurgeProgress.of(task), []
    while await purge_one(store, progress) is ChunkOutcome.MORE:
        left.append(await rows_of(sql, task, "log_entries"))
    assert left == [8, 4]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("chunk_rows", [3, 500])
async def test_a_locked_row_is_left_and_the_others_are_purged(
    store: Store, sql: Connection, database: str, table: str, chunk_rows: int
) -> None:
    log = await filled(store)
    key = "epoch = 1 AND ordinal = 5" if table == "log_entries" else "true"
    foreign = await asyncpg.connect(database)
    progress = PurgeProgress.of(log.task_id)
    try:
        async with foreign.transaction():
            await foreign.fetch(
                f"SELECT FROM {table} WHERE task_id = $1 AND {key} LIMIT 1 FOR UPDATE", log.task_id
            )
            await store.tasks.delete(log.task_id)
            while (
                outcome := await purge_one(store, progress, chunk_rows=chunk_rows)
            ) is ChunkOutcome.MORE:
                pass
            assert outcome is ChunkOutcome.HELD
            left = {one: await rows_of(sql, log.task_id, one) for one in TABLES}
            assert left == {one: int(one == table) for one in TABLES}
            # It is still locked.
            assert await purge_one(store, progress) is ChunkOutcome.HELD
    finally:
        await foreign.close()
    assert await purge_one(store, progress) is ChunkOutcome.GONE
    assert await rows_of(sql, log.task_id, table) == 0
    assert await store.purges.count() == 0


async def test_a_purge_waits_for_no_lock_of_the_task_itself(store: Store, sql: Connection) -> None:
    log = await filled(store)
    await store.tasks.delete(log.task_id)
    async with sql.transaction():
        await sql.fetch("SELECT FROM tasks WHERE task_id = $1 FOR UPDATE", log.task_id)
        assert await purge_one(store, PurgeProgress.of(log.task_id)) is ChunkOutcome.HELD
    assert await purge_one(store, PurgeProgress.of(log.task_id)) is ChunkOutcome.GONE


async def test_rows_that_come_back_behind_the_purge_are_deleted_too(
    store: Store, sql: Connection
) -> None:
    """As after a failover: the new primary lacks the last deletions, and is another backend."""
    log = await filled(store)
    task_id = log.task_id
    await store.tasks.delete(task_id)
    progress = PurgeProgress.of(task_id)
    assert await purge_one(store, progress, chunk_rows=3) is ChunkOutcome.MORE
    assert await purge_one(store, progress, chunk_rows=3) is ChunkOutcome.MORE
    await fill(sql, task_id, 1)
    assert progress.backend is not None
    progress.backend = "another backend"
    while await purge_one(store, progress, chunk_rows=3) is not ChunkOutcome.GONE:
        pass
    assert await rows_of(sql, task_id, "log_entries") == 0


async def test_two_servers_purge_the_same_tasks_without_errors(
    store: Store, database: str, sql: Connection
) -> None:
    other = await Store.open(database, read_connections=2, lease=timedelta(seconds=30))
    try:
        logs = [await filled(store) for _ in range(20)]
        for log in logs:
            await store.tasks.delete(log.task_id)

        async def purge(one: Store) -> None:
            for log in logs:
                progress = PurgeProgress.of(log.task_id)
                while await purge_one(one, progress, chunk_rows=2) is not ChunkOutcome.GONE:
                    pass

        await asyncio.gather(purge(store), purge(other))
        for table in (*TABLES, "tasks"):
            assert await sql.fetchval(f"SELECT count(*) FROM {table}") == 0, table
    finally:
        await other.close()


async def chunk_costs(sql: Connection, task_id: UUID) -> list[int]:
    """Purge a deleted task as the store does, and return how many buffers each chunk took."""
    progress, costs = PurgeProgress.of(task_id), []
    await sql.execute("SET plan_cache_mode = force_generic_plan")
    await sql.execute("SET jit = off")
    outcome = ChunkOutcome.MORE
    while outcome is ChunkOutcome.MORE:
        arguments = arguments_of(progress, CHUNK_ROWS)
        transaction = sql.transaction()
        await transaction.start()
        try:
            costs.append(buffers_of(await explain(sql, _CHUNK, *arguments)))
        finally:
            await transaction.rollback()
        row = await sql.fetchrow(_CHUNK, *arguments)
        assert row is not None
        if row["outcome"] == "gone":
            return costs
        outcome = progress.advance(row)
    raise AssertionError(outcome)


@pytest.mark.parametrize("is_old", [False, True], ids=["", "under an old snapshot"])
async def test_the_last_chunk_costs_what_the_first_did_without_a_vacuum(
    store: Store, task: UUID, sql: Connection, database: str, is_old: bool
) -> None:
    await sql.execute("ALTER TABLE log_entries SET (autovacuum_enabled = false)")
    await fill(sql, task, 40 * CHUNK_ROWS)
    await sql.execute("ANALYZE")
    await store.tasks.delete(task)
    old = await asyncpg.connect(database)
    try:
        async with old.transaction(isolation="repeatable_read"):
            if is_old:
                await old.fetchval("SELECT count(*) FROM log_entries")
            costs = await chunk_costs(sql, task)
    finally:
        await old.close()
    assert len(costs) == 41
    assert max(costs[1:]) <= 1.1 * costs[0] + 10, costs


async def test_a_chunk_scans_no_table(store: Store, task: UUID, sql: Connection) -> None:
    await sql.execute("SET plan_cache_mode = force_generic_plan")
    await sql.execute("SET enable_seqscan = off")
    for _ in range(3):
        await fill(sql, await new_task(store), 1000)
    await fill(sql, task, 1000)
    await sql.execute("ANALYZE")
    await store.tasks.delete(task)
    async with sql.transaction():
        plan = await explain(sql, _CHUNK, *arguments_of(PurgeProgress.of(task), 10))
    assert buffers_of(plan) < 100


async def test_finding_deleted_tasks_reads_a_page_of_them_only(
    store: Store, sql: Connection
) -> None:
    await sql.execute(
        "INSERT INTO tasks (task_id, owner, name, display_name, prompt, standalone,"
        " agent_token_hash, deleted_at)"
        " SELECT gen_random_uuid(), 'local', i::text, '', '', false, '',"
        " now() + interval '1 s' * (i / 2) FROM generate_series(1, 10000) i"
    )
    await sql.execute("ANALYZE tasks")
    await sql.execute("SET plan_cache_mode = force_generic_plan")
    first = await store.purges.deleted(limit=201)
    second = await store.purges.deleted(first[-1], limit=201)
    # Two tasks were deleted at each moment, and each is found once.
    assert len({task for _, task in (*first, *second)}) == 402
    assert [*first, *second] == sorted([*first, *second])
    plan = await explain(sql, _DELETED, *first[-1], 201)
    assert buffers_of(plan) < 300
    assert await store.purges.count() == 10_000
