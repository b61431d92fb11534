"""Eviction removes the oldest rows first, but no young entry and never the tail."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from tasklogs.log.entry import Entry, EntryType, Time
from tasklogs_server.domain.errors import TaskNotFound
from tasklogs_server.store import Store
from tasklogs_server.store.evictions import _EVICT, EvictionOutcome, LogLimits
from tasklogs_server.store.log_reads import PageQuery
from tasklogs_server.store.log_writes import Outcome
from tests.store.logs import ENTRY_COLUMNS, Connection, Log, entry_record, entry_row, new_task
from tests.store.test_plans import explain, nodes

NOW, WEEK = timedelta(0), timedelta(days=7)
EVICTED, NOTHING = EvictionOutcome.EVICTED, EvictionOutcome.NOTHING


def limits(
    rows: int = 1_000_000, bytes_: int = 1 << 30, min_retention: timedelta = NOW
) -> LogLimits:
    return LogLimits(rows, bytes_, min_retention)


async def evict_all(log: Log, to: LogLimits) -> int:
    """Evict chunk by chunk until nothing is left to evict. Return the number of chunks."""
    chunks = 0
    while (await log.store.evictions.evict(log.task_id, to)).outcome is EVICTED:
        chunks += 1
    return chunks


async def pass_time(sql: Connection, log: Log, days: int) -> None:
    """Make all entries and events of a log older."""
    for table in ("log_entries", "log_events"):
        await sql.execute(
            f"UPDATE {table} SET committed_at = committed_at - make_interval(days => $2)"
            " WHERE task_id = $1",
            log.task_id,
            days,
        )


async def rows_of(sql: Connection, task_id: UUID) -> int:
    """Count the rows of a log, as its head counts them."""
    return int(
        await sql.fetchval(
            "SELECT (SELECT count(*) FROM log_entries WHERE task_id = $1)"
            " + (SELECT count(*) FROM log_events WHERE task_id = $1)",
            task_id,
        )
    )


async def test_a_log_within_its_limits_loses_nothing(log: Log) -> None:
    await log.write(log.commit([b"a", b"b", b"c"], open_epoch=True))
    holding = await log.store.evictions.evict(log.task_id, limits(rows=4, bytes_=3))
    assert (holding.outcome, holding.rows, holding.bytes) == (NOTHING, 4, 3)
    assert await log.contents() == ["a", "b", "c"]


async def test_the_oldest_epoch_is_evicted_first_then_the_oldest_entries_of_the_current_one(
    log: Log, sql: Connection
) -> None:
    await log.write(log.commit([b"a0", b"a1"], open_epoch=True))
    await log.write(log.commit([b"b0", b"b1", b"b2", b"b3"], open_epoch=True))
    held = []
    for bytes_ in (11, 9, 7, 5, 3):
        await evict_all(log, limits(bytes_=bytes_))
        held.append([await log.contents(PageQuery(epoch=1)), await log.contents()])
    assert held == [
        [["a1"], ["b0", "b1", "b2", "b3"]],
        [[], ["b0", "b1", "b2", "b3"]],
        [[], ["b1", "b2", "b3"]],
        [[], ["b2", "b3"]],
        [[], ["b2", "b3"]],  # the tail stays, and the entry before it
    ]
    task = await log.store.tasks.get(log.task_id)
    assert (task.head.held_bytes, task.head.held_entries, task.head.entries) == (4, 2, 4)
    assert task.head.rows - task.head.evicted.rows == await rows_of(sql, log.task_id)


async def test_an_eviction_removes_exactly_the_prefix_that_it_reports(log: Log) -> None:
    await log.write(log.commit([b"a"] * 40, open_epoch=True))
    holding = await log.store.evictions.evict(log.task_id, limits(rows=32))
    # 41 rows: nine must be evicted, and a sixteenth of the limit in addition.
    assert (holding.rows, holding.evicted.revision, holding.evicted.ordinal) == (30, 12, 10)
    page = await log.page()
    assert (page.first_id, page.start, page.end) == (11, 11, 40)


async def test_nothing_younger_than_the_retention_is_evicted(log: Log, sql: Connection) -> None:
    await log.write(log.commit([b"a", b"b", b"c"], open_epoch=True))
    small = limits(rows=1, min_retention=WEEK)
    assert await evict_all(log, small) == 0
    await pass_time(sql, log, days=6)
    await log.write(log.commit([b"d", b"e", b"f"]))
    assert await evict_all(log, small) == 0
    await pass_time(sql, log, days=2)
    assert await evict_all(log, small) == 1
    assert await log.contents() == ["d", "e", "f"]
    old_in = await log.store.evictions.old_in(log.task_id, WEEK)
    assert old_in is not None
    assert timedelta(days=4.9) < old_in <= timedelta(days=5)
    await pass_time(sql, log, days=6)
    assert await log.store.evictions.old_in(log.task_id, WEEK) is None


@pytest.mark.parametrize("folds", [False, True], ids=["sealed", "folded, then sealed"])
async def test_the_age_of_an_entry_counts_from_its_last_change(
    log: Log, sql: Connection, folds: bool
) -> None:
    await log.write(log.commit([b"a", b"b"], open_epoch=True))
    await pass_time(sql, log, days=8)
    await log.write(log.commit(grow=b"b", keep=1))
    whole = entry_row(1, 1, log.head.revision, b"bb")
    if folds:
        await log.store.writes.fold(
            log.task_id,
            generation=log.head.generation,
            fence=log.fence,
            revision=log.head.revision,
            row=whole,
        )
    sealing = log.commit([b"c", b"d"])
    await log.write(sealing if folds else replace(sealing, rows=[whole, *sealing.rows]))
    await log.write(log.commit([b"e", b"f"], open_epoch=True))
    assert await evict_all(log, limits(rows=1, min_retention=WEEK)) == 1
    assert await log.contents(PageQuery(epoch=1)) == ["bb", "c", "d"]


async def test_after_the_clock_was_set_back_nothing_behind_a_young_entry_is_evicted(
    log: Log, sql: Connection
) -> None:
    await log.write(log.commit([b"a", b"b", b"c", b"d", b"e", b"f"], open_epoch=True))
    await pass_time(sql, log, days=8)
    await sql.execute("UPDATE log_entries SET committed_at = clock_timestamp() WHERE ordinal = 2")
    assert await evict_all(log, limits(rows=1, min_retention=WEEK)) == 1
    assert await log.contents() == ["c", "d", "e", "f"]


async def test_without_a_retention_an_entry_with_a_future_time_is_evicted_too(
    log: Log, sql: Connection
) -> None:
    await log.write(log.commit([b"a", b"b", b"c"], open_epoch=True))
    await pass_time(sql, log, days=-1)
    assert await evict_all(log, limits(rows=1)) == 1
    assert await log.contents() == ["b", "c"]


async def test_a_deleted_log_is_not_evicted_from(store: Store, log: Log) -> None:
    await log.write(log.commit([b"a"], open_epoch=True))
    await store.tasks.delete(log.task_id)
    with pytest.raises(TaskNotFound):
        await store.evictions.evict(log.task_id, limits())


async def test_commits_continue_at_their_revision_after_an_eviction(
    log: Log, sql: Connection
) -> None:
    await log.write(log.commit([b"a"] * 10, open_epoch=True))
    await log.write(log.commit(grow=b"b", keep=1))
    before = log.head
    await evict_all(log, limits(rows=2))
    assert await log.write(log.commit(grow=b"c", keep=2)) is Outcome.COMMITTED
    assert await log.write(log.commit(withdraw=True)) is Outcome.COMMITTED
    assert await log.write(log.commit([b"z"])) is Outcome.COMMITTED
    assert await log.contents() == ["a", "z"]
    again = await Log.open(log.store, log.task_id)
    assert (again.head.epoch, again.head.entries, again.head.digest) == (1, 10, before.digest)
    assert again.head.rows - again.head.evicted.rows == await rows_of(sql, log.task_id)


async def test_the_last_id_is_known_after_evictions_and_a_withdrawal(log: Log) -> None:
    await log.write(log.commit([b"a"] * 10, open_epoch=True))
    await evict_all(log, limits(rows=1))
    await log.write(log.commit(withdraw=True))
    await evict_all(log, limits(rows=1))
    opening = await log.store.sessions.open_session(
        log.task_id, admit=lambda _: None, connect=lambda facts: facts
    )
    assert (opening.tail_content, opening.last_sealed_id) == (None, 8)


async def test_a_log_whose_head_is_locked_or_has_changed_is_not_evicted_from(
    log: Log, sql: Connection
) -> None:
    await log.write(log.commit([b"a"] * 10, open_epoch=True))
    async with sql.transaction():
        await sql.execute("SELECT FROM log_heads WHERE task_id = $1 FOR UPDATE", log.task_id)
        holding = await log.store.evictions.evict(log.task_id, limits(rows=1))
        assert holding.outcome is EvictionOutcome.LOCKED
    assert (await log.store.evictions.evict(log.task_id, limits(rows=1))).outcome is EVICTED


async def test_a_chunk_is_bounded_by_rows_and_by_bytes(log: Log) -> None:
    await log.write(log.commit([b"x" * 1000] * 100, open_epoch=True))
    evictions = log.store.evictions
    few = await evictions.evict(log.task_id, limits(rows=2), chunk_rows=10)
    assert few.evicted.rows == 10
    small = await evictions.evict(log.task_id, limits(rows=2), chunk_bytes=5_000)
    assert small.evicted.bytes == 15_000


async def test_openings_and_withdrawals_are_evicted_with_the_entries_after_them(
    log: Log, sql: Connection
) -> None:
    for _ in range(3):
        await log.write(log.commit([b"a", b"b"], open_epoch=True))
        await log.write(log.commit(withdraw=True))
        await log.write(log.commit([b"c", b"d"]))
    events = "SELECT epoch, id IS NULL AS opens FROM log_events ORDER BY revision"
    await evict_all(log, limits(rows=2))
    assert len(await sql.fetch(events)) == 6  # the limit of epochs counts those of the last hour
    await pass_time(sql, log, days=1)
    await log.write(log.commit([b"e", b"f"]))
    await evict_all(log, limits(rows=2))
    # The withdrawal of epoch 3 came before all stored entries. Searches begin at its opening.
    assert [tuple(row) for row in await sql.fetch(events)] == [(3, True)]
    task = await log.store.tasks.get(log.task_id)
    assert task.head.rows - task.head.evicted.rows == await rows_of(sql, log.task_id) == 3


async def test_concurrent_commits_and_evictions_lose_only_what_is_evicted(
    store: Store, log: Log, sql: Connection
) -> None:
    await log.write(log.commit([b"0"], open_epoch=True))
    done = asyncio.Event()

    async def evict() -> None:
        while not done.is_set():
            await store.evictions.evict(log.task_id, limits(rows=20))

    async with asyncio.TaskGroup() as group:
        group.create_task(evict())
        group.create_task(evict())
        for number in range(1, 300):
            commit = log.commit([str(number).encode()])
            while (outcome := await log.write(commit)) is Outcome.LOCKED:
                pass
            assert outcome is Outcome.COMMITTED
        done.set()
    await evict_all(log, limits(rows=20))
    contents = await log.contents()
    assert contents == [str(number) for number in range(300 - len(contents), 300)]
    task = await store.tasks.get(log.task_id)
    assert task.head.held_entries == len(contents) <= 20
    assert task.head.held_bytes == sum(map(len, contents))
    assert task.head.rows - task.head.evicted.rows == await rows_of(sql, log.task_id)


async def test_a_prefix_is_recognised_while_some_of_it_is_stored(log: Log) -> None:
    await log.write(log.commit([b"0", b"1", b"2", b"3", b"4", b"5"], open_epoch=True))
    await evict_all(log, limits(bytes_=3))
    shown = [Entry(id_, EntryType.OUTPUT, Time(id_ + 1, 0), str(id_).encode()) for id_ in range(6)]
    is_prefix = log.store.sessions.is_prefix
    assert await log.contents() == ["3", "4", "5"]
    assert await is_prefix(log.task_id, 1, shown[:5], generation=log.head.generation)
    assert await is_prefix(log.task_id, 1, shown[:4], generation=log.head.generation)
    assert not await is_prefix(
        log.task_id, 1, shown[:3], generation=log.head.generation
    )  # nothing to compare it with
    other = Entry(3, EntryType.OUTPUT, Time(4, 0), b"other")
    assert not await is_prefix(log.task_id, 1, [*shown[:3], other], generation=log.head.generation)


async def test_logs_past_their_limits_are_found_page_by_page(store: Store) -> None:
    past = set()
    for number in range(7):
        log = await Log.open(store, await new_task(store))
        await log.write(log.commit([b"a"] * (5 if number % 2 else 2), open_epoch=True))
        past |= {log.task_id} if number % 2 else set()
    found: list[UUID] = []
    after: UUID | None = UUID(int=0)
    while after is not None:
        ids, after = await store.evictions.past_limits(limits(rows=4), after=after, rows=2)
        found += ids
    assert found == sorted(past)


async def test_a_chunk_reads_only_its_own_rows_on_a_log_of_any_length(
    log: Log, sql: Connection
) -> None:
    await log.write(log.commit(open_epoch=True))
    rows = [entry_row(1, number, number + 2, b"x" * 80) for number in range(50_000)]
    await sql.copy_records_to_table(
        "log_entries",
        records=[entry_record(log.task_id, row) for row in rows],
        columns=ENTRY_COLUMNS,
    )
    await sql.execute("UPDATE log_heads SET entries = 50000, total_rows = 50001, revision = 50001")
    await sql.execute("ANALYZE")
    await sql.execute("SET plan_cache_mode = force_generic_plan")
    plan = await explain(sql, _EVICT, log.task_id, 0, 0, 1000, 1 << 30, NOW, 100, 1 << 20)
    scans = [node["Relation Name"] for node in nodes(plan) if node["Node Type"] == "Seq Scan"]
    assert "log_entries" not in scans
    assert max(node["Actual Rows"] * node["Actual Loops"] for node in nodes(plan)) <= 100
