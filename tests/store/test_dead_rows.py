"""Rows that were deleted and not vacuumed yet cost readers nothing.

Deleted rows stay in the indexes until a vacuum, and a vacuum removes none that the oldest snapshot
may still see: a backup, or a long query. So a statement that begins at the oldest row needs a lower
bound, or it visits each deleted row before it. These tests count the buffers that the prepared
statements touch while another connection holds such a snapshot.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from tasklogs.log.entry import EntryType
from tasklogs_server.store import Store
from tasklogs_server.store.commit_statements import COMMIT, arguments_of
from tasklogs_server.store.evictions import _NEXT_IS_OLD_IN, EvictionOutcome, LogLimits
from tasklogs_server.store.log_changes import (
    _CHANGES,
    _CHANGES_OF_TYPES,
    _START,
    _START_OF_TYPES,
)
from tasklogs_server.store.log_reads import _READ, _READ_OF_TYPES, _TAIL
from tasklogs_server.store.sessions import _EPOCHS_SINCE
from tests.store.logs import (
    ENTRY_COLUMNS,
    Connection,
    Log,
    entry_record,
    entry_row,
    new_task,
)
from tests.store.test_plans import buffers_of, explain, nodes

INPUT, OUTPUT = EntryType.INPUT, EntryType.OUTPUT
ENTRIES, LOST = 16_000, 100_000
NOW = timedelta(0)
# DESIGN.md 11: a log that has just lost 100,000 entries to its limits, against a fresh one.
RATIO = 1.5


@pytest.fixture
async def old_snapshot(database: str, store: Store) -> AsyncIterator[None]:
    """Another connection holds a snapshot of the database as it is now."""
    connection = await asyncpg.connect(database)
    transaction = connection.transaction(isolation="repeatable_read")
    await transaction.start()
    await connection.fetchval("SELECT count(*) FROM tasks")
    yield
    await transaction.rollback()
    await connection.close()


@pytest.fixture
async def planned(planned: Connection) -> Connection:
    # In a database of two logs, a scan of all rows may look cheap.
    await planned.execute("SET enable_seqscan = off")
    return planned


async def filled(store: Store, sql: Connection, entries: int, *, epochs: int = 1) -> Log:
    """Make a log of `entries` entries of 80 bytes per epoch; every 1,000th is an INPUT."""
    log = await Log.open(store, await new_task(store))
    revision = 0
    for epoch in range(1, epochs + 1):
        await log.write(log.commit(open_epoch=True))
        revision += 1
        rows = [
            entry_row(epoch, n, revision + n + 1, b"x" * 80, type_=OUTPUT if n % 1_000 else INPUT)
            for n in range(entries)
        ]
        await sql.copy_records_to_table(
            "log_entries",
            records=[entry_record(log.task_id, row) for row in rows],
            columns=ENTRY_COLUMNS,
        )
        revision += entries
        await sql.execute(
            "UPDATE log_heads SET entries = $2, revision = $3::bigint, total_rows = $3,"
            " bytes = $3 * 80 WHERE task_id = $1",
            log.task_id,
            entries,
            revision,
        )
        log = await Log.open(store, log.task_id)
    return log


async def evict(log: Log, rows: int, *, chunk_rows: int = 500) -> None:
    """Evict the oldest entries until `rows` rows are left, or fewer."""
    limits = LogLimits(rows * 16 // 15, 1 << 40, NOW)
    outcome = EvictionOutcome.EVICTED
    while outcome is EvictionOutcome.EVICTED:
        holding = await log.store.evictions.evict(log.task_id, limits, chunk_rows=chunk_rows)
        outcome = holding.outcome
    assert holding.rows <= rows * 16 // 15, holding


@dataclass
class Costs:
    """The buffers of each statement on one log."""

    sql: Connection
    log: Log

    async def of(self, statement: str, *arguments: object) -> int:
        plan = await explain(self.sql, statement, *arguments)
        # What changes rows runs after the node at the top, and is not counted there.
        changes = [node for node in nodes(plan) if node["Node Type"] == "ModifyTable"]
        return buffers_of(plan) + sum(map(buffers_of, changes))

    async def read(self, types: tuple[int, ...] = (), **query: Any) -> int:
        return await self.of(
            (_READ_OF_TYPES if types else _READ)[False],
            *self.log.store._lease_terms,
            self.log.task_id,
            query.get("epoch"),
            query.get("tail"),
            query.get("start"),
            query.get("end"),
            query.get("rows", 30),
            1_000_000,
            None,
            *([types] if types else []),
        )

    async def start(self, tail: int | None, types: tuple[int, ...] = ()) -> int:
        return await self.of(
            (_START_OF_TYPES if types else _START)[False],
            *self.log.store._lease_terms,
            self.log.task_id,
            None,
            tail,
            *([types] if types else []),
        )

    async def since(
        self, revision: int, types: tuple[int, ...] = (), *, held: int | None = None, rows: int = 30
    ) -> int:
        return await self.of(
            _CHANGES_OF_TYPES if types else _CHANGES,
            *self.log.store._lease_terms,
            self.log.task_id,
            revision,
            rows,
            1_000_000,
            held,
            *([types] if types else []),
        )

    async def all_reads(self) -> dict[str, int]:
        """The cost of each read that begins at the oldest entry, or near it."""
        head = (await self.log.store.tasks.get(self.log.task_id)).head
        evicted = head.evicted.revision
        return {
            "the last 30": await self.read(tail=30),
            "the first page": await self.read(),
            "the last 3 of a rare type": await self.read((INPUT,), tail=3),
            "the last 30 of a rare type": await self.read((INPUT,), tail=30),
            "the first page of a rare type": await self.read((INPUT,)),
            "a type that no entry has": await self.read((99,), tail=30),
            "the start of a follow": await self.start(None),
            "the start of a follow of the last 30": await self.start(30),
            "the start of a follow of a rare type": await self.start(30, (INPUT,)),
            "changes from the oldest": await self.since(evicted),
            "changes from the middle": await self.since((evicted + head.revision) // 2),
            "changes at the end": await self.since(head.revision),
            "changes from the oldest, a rare type": await self.since(evicted, (INPUT,)),
            "changes from before the oldest": await self.since(evicted // 2),
            "changes from the beginning": await self.since(0),
            "when the oldest is old": await self.of(_NEXT_IS_OLD_IN, self.log.task_id, NOW),
        }


def dearer(found: dict[str, int], wanted: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Return what costs more than it should: the cost, and that on a fresh log."""
    return {
        name: (found[name], least)
        for name, least in wanted.items()
        if found[name] > RATIO * least + 4
    }


async def test_a_log_that_lost_entries_to_its_limits_costs_as_much_as_a_fresh_one(
    store: Store, planned: Connection, old_snapshot: None
) -> None:
    fresh = await filled(store, planned, ENTRIES)
    log = await filled(store, planned, LOST + ENTRIES)
    await planned.execute("ANALYZE")
    await evict(log, ENTRIES, chunk_rows=LOST)
    wanted = await Costs(planned, fresh).all_reads()
    found = await Costs(planned, log).all_reads()
    assert dearer(found, wanted) == {}


async def test_an_epoch_that_was_evicted_costs_as_much_as_one_that_never_was(
    store: Store, planned: Connection, old_snapshot: None
) -> None:
    log = await filled(store, planned, 20_000, epochs=2)
    await planned.execute("ANALYZE")
    await evict(log, 10_000, chunk_rows=50_000)
    costs = Costs(planned, log)
    found, wanted = [
        {
            "the first page": await costs.read(epoch=epoch),
            "the last 30": await costs.read(epoch=epoch, tail=30),
            "the last 30 of a type": await costs.read((OUTPUT,), epoch=epoch, tail=30),
        }
        for epoch in (1, 7)
    ]
    assert dearer(found, wanted) == {}


async def test_parts_that_were_folded_cost_readers_and_commits_nothing(
    store: Store, planned: Connection, old_snapshot: None
) -> None:
    found = []
    for dead in (0, 25_000):
        log = await filled(store, planned, 10)
        head = log.head
        revision = head.revision + dead
        await planned.execute(
            "INSERT INTO log_tail_parts (task_id, revision, keep_bytes, text)"
            " SELECT $1, $2 + i, 80, 'grows' FROM generate_series(1, $3::int) i",
            log.task_id,
            head.revision,
            dead,
        )
        await planned.execute("DELETE FROM log_tail_parts WHERE task_id = $1", log.task_id)
        await planned.execute(
            "UPDATE log_heads SET revision = $2 WHERE task_id = $1", log.task_id, revision
        )
        log = await Log.open(store, log.task_id)
        await log.write(log.commit([b"the tail"]))
        await log.write(log.commit(grow=b" grows", keep=8))
        costs = Costs(planned, log)
        transaction = planned.transaction()
        await transaction.start()
        commit = await costs.of(COMMIT.sql, *arguments_of(log.commit([b"the next"])))
        await transaction.rollback()
        found.append(
            {
                "a page with the tail": await costs.read(),
                "the tail": await costs.of(_TAIL, log.task_id),
                "changes": await costs.since(log.head.revision - 1),
                "changes of a caller that holds the tail": await costs.since(
                    log.head.revision - 1, held=log.head.revision - 1
                ),
                "changes of a type": await costs.since(log.head.revision - 1, (OUTPUT,)),
                "the next entry": commit,
            }
        )
        assert (await log.contents())[-1] == "the tail grows"
    assert dearer(found[1], found[0]) == {}


async def withdrawn(store: Store, sql: Connection, withdrawals: int) -> Log:
    """Make a log in which entries were added and withdrawn so many times."""
    log = await filled(store, sql, 100)
    first = log.head.revision + 1
    await sql.execute(
        "INSERT INTO log_events (task_id, revision, epoch, ordinal, id, type)"
        " SELECT $1, $2::bigint + 2 * i, 1, 100, 100 + i, 2"
        " FROM generate_series(0, $3::int - 1) i",
        log.task_id,
        first,
        withdrawals,
    )
    await sql.execute(
        "UPDATE log_heads SET revision = $2::bigint, total_rows = total_rows + $3"
        " WHERE task_id = $1",
        log.task_id,
        first + 2 * withdrawals,
        withdrawals,
    )
    return await Log.open(store, log.task_id)


async def test_withdrawals_before_the_cursor_are_not_read(
    store: Store, planned: Connection
) -> None:
    found = []
    for withdrawals in (1, 200_000):
        log = await withdrawn(store, planned, withdrawals)
        await planned.execute("ANALYZE")
        costs, end = Costs(planned, log), log.head.revision
        await log.write(log.commit([b"x"] * 10))  # none of the last four is before the cursor
        found.append(
            {
                "the start of a follow": await costs.start(None),
                "changes at the end": await costs.since(end),
                "changes of a rare type": await costs.since(end, (INPUT,)),
                "epochs in the last hour": await costs.of(_EPOCHS_SINCE, log.task_id),
            }
        )
    assert dearer(found[1], found[0]) == {}


async def test_events_that_were_evicted_are_not_read(
    store: Store, planned: Connection, old_snapshot: None
) -> None:
    found = []
    for withdrawals in (1, 20_000):
        log = await withdrawn(store, planned, withdrawals)
        await log.write(log.commit([b"x"] * 100))
        await planned.execute(
            "UPDATE log_events SET committed_at = now() - interval '1 day' WHERE task_id = $1",
            log.task_id,
        )
        await planned.execute("ANALYZE")
        await evict(log, 5)
        costs = Costs(planned, log)
        found.append(await costs.all_reads())
    assert dearer(found[1], found[0]) == {}
