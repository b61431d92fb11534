"""Growing tails do not bloat the tables: their size is compared with that of a fresh copy.

The default run is short. `TASKLOGS_BLOAT_SECONDS=600 pytest -s tests/store/test_bloat.py` is a long
run, which prints a line from time to time.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from tasklogs.log.append import Append, TailChange
from tasklogs.log.delta import Delta
from tasklogs.log.entry import Entry, EntryType, Time
from tasklogs_server.ingest.draft import Draft
from tasklogs_server.store import Store
from tasklogs_server.store.log_writes import Outcome
from tests.store.logs import Connection, new_task
from tests.support.fixtures.postgres import PostgresServer

SECONDS = float(os.environ.get("TASKLOGS_BLOAT_SECONDS", "20"))
TASKS = 50
CHANGES_A_SECOND = 20
"""Per task, as for a terminal agent that writes."""
STEP_BYTES = 200
STEPS_AN_ENTRY = 200
TABLES = ("log_heads", "log_entries", "log_tail_parts", "log_events")
# Below this a table's size is a few pages and the rows added since the last vacuum.
COUNTED_FROM_BYTES = 4 * 1024 * 1024


@dataclass
class Typist:
    """A task whose tail grows. When an entry is long, the next one begins."""

    task_id: UUID
    fence: int
    draft: Draft
    steps: int
    ids: itertools.count[int] = field(default_factory=itertools.count)
    id_: int = 0
    length: int = 0

    def change(self) -> Append:
        """Let the tail grow, redraw its end sometimes, and begin the next entry when it is long."""
        self.steps += 1
        if self.length == 0 or self.steps % STEPS_AN_ENTRY == 0:
            opens, self.id_ = self.length == 0, next(self.ids)
            self.length = STEP_BYTES
            entry = Entry(
                self.id_,
                EntryType.OUTPUT,
                Time(self.id_, 0),
                os.urandom(STEP_BYTES // 2).hex().encode(),
            )
            return Append(1, open_epoch=opens, entries=[entry])
        keep = self.length - (STEP_BYTES // 2 if self.steps % 10 == 0 else 0)
        text = _text()
        self.length = keep + len(text)
        return Append(1, tail=TailChange(self.id_, Time(self.id_, 0), Delta.keeping(keep, text)))


def _text() -> bytes:
    return os.urandom(STEP_BYTES // 2).hex().encode()  # compresses no better than real text


async def typists(store: Store) -> Sequence[Typist]:
    """Make the tasks, each with an entry of another length."""
    made = []
    for number in range(TASKS):
        task_id = await new_task(store)
        opening = await store.sessions.open_session(
            task_id, admit=lambda _: None, connect=lambda facts: facts
        )
        steps = number * STEPS_AN_ENTRY // TASKS
        made.append(Typist(task_id, opening.fence, Draft(opening.head), steps))
    return made


async def type_for(store: Store, writers: Sequence[Typist], seconds: float) -> int:
    """Commit the changes of all tasks, round after round. Return the number of changes."""
    began = time.monotonic()
    for number in itertools.count(1):
        commits = []
        for writer in writers:
            writer.draft.apply(writer.change())
            commit = writer.draft.next_commit(writer.task_id, writer.fence, datetime.now(UTC))
            assert commit is not None
            commits.append(commit)
        outcomes = await store.writes.commit(commits)
        assert set(outcomes.values()) == {Outcome.COMMITTED}
        if time.monotonic() - began >= seconds:
            return number * len(writers)
        # A machine that is too slow for the rate makes fewer changes. That is fine: the test is
        # about dead rows.
        await asyncio.sleep(max(0.0, began + number / CHANGES_A_SECOND - time.monotonic()))
    raise AssertionError


async def sizes(sql: Connection) -> dict[str, tuple[int, int]]:
    """The size of each table with its indexes and TOAST, and that of a fresh copy."""
    measured = {}
    for table in TABLES:
        transaction = sql.transaction()
        await transaction.start()
        try:
            await sql.execute(f"CREATE TABLE fresh (LIKE {table} INCLUDING ALL)")
            await sql.execute(f"INSERT INTO fresh SELECT * FROM {table}")
            total = await sql.fetchval("SELECT pg_total_relation_size($1::text::regclass)", table)
            fresh = await sql.fetchval("SELECT pg_total_relation_size('fresh')")
        finally:
            await transaction.rollback()
        measured[table] = (int(total), int(fresh))
    return measured


def described(measured: dict[str, tuple[int, int]]) -> str:
    """The measured sizes in one line."""
    return ", ".join(
        f"{table} {total / 2**20:.1f}/{fresh / 2**20:.1f} MiB"
        for table, (total, fresh) in measured.items()
    )


@pytest.mark.timeout(SECONDS * 2 + 120)
async def test_growing_tails_do_not_bloat_the_tables(postgres_server: PostgresServer) -> None:
    store = await Store.open(postgres_server.dsn(), read_connections=2, lease=timedelta(seconds=30))
    sql = await asyncpg.connect(postgres_server.dsn())
    try:
        writers = await typists(store)
        changes, began = 0, time.monotonic()
        while (left := SECONDS - (time.monotonic() - began)) > 0:
            changes += await type_for(store, writers, min(left, 30.0))
            measured = await sizes(sql)
            sys.stdout.write(
                f"{time.monotonic() - began:.0f} s, {changes} changes: {described(measured)}\n"
            )
        bloated = {
            table: (total, fresh)
            for table, (total, fresh) in measured.items()
            if total > max(2 * fresh, COUNTED_FROM_BYTES)
        }
        assert not bloated, described(measured)
    finally:
        await sql.close()
        await store.close()
