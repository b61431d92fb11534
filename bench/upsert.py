"""The bare batch upsert: 1,000 rows by `unnest` into a table like `log_entries`."""

from __future__ import annotations

import math
import time
from typing import Any
from uuid import UUID

import asyncpg

from bench.text import words
from tasklogs.log.entry import EntryType, Time
from tasklogs_server.wire.entries import encode_head

_TABLE = "CREATE TABLE IF NOT EXISTS bench_entries (LIKE log_entries INCLUDING ALL)"
_UPSERT = """
    INSERT INTO bench_entries (task_id, epoch, ordinal, id, revision, head, content, type)
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::int[], $4::int[], $5::bigint[], $6::bytea[],
                         $7::bytea[], $8::smallint[])
    ON CONFLICT (task_id, epoch, ordinal) DO UPDATE
       SET id = excluded.id, revision = excluded.revision, head = excluded.head,
           content = excluded.content, type = excluded.type"""


class Upserts:
    """One connection that sends batch after batch, each its own transaction."""

    def __init__(self) -> None:
        self._connection: Any = None
        self._next_ordinal = 0

    async def open(self, dsn: str) -> int:
        """Connect; the result is 0 rows."""
        self._connection = await asyncpg.connect(dsn)
        await self._connection.execute(_TABLE)
        return 0

    async def run(
        self,
        rows: int,
        tasks: int,
        content_bytes: int,
        seconds: float = math.inf,
        batches: float = math.inf,
    ) -> dict[str, Any]:
        """Upsert batches of `rows`, spread evenly over `tasks`, for this long, or this many."""
        began = time.perf_counter()
        committed = 0
        while committed < batches * rows and time.perf_counter() < began + seconds:
            await self._connection.execute(_UPSERT, *self._batch(rows, tasks, content_bytes))
            committed += rows
        return {"seconds": time.perf_counter() - began, "entries": committed}

    def _batch(self, rows: int, tasks: int, content_bytes: int) -> tuple[list[Any], ...]:
        each, first = rows // tasks, self._next_ordinal
        self._next_ordinal += each
        ordinals = list(range(first, first + each))
        head = encode_head(first, EntryType.OUTPUT, Time(1_760_000_000, 0), 1, 0, content_bytes)
        content = words(content_bytes).encode()
        return (
            [UUID(int=task) for task in range(tasks) for _ in ordinals],
            [1] * rows,
            ordinals * tasks,
            ordinals * tasks,
            ordinals * tasks,
            [head] * rows,
            [content] * rows,
            [int(EntryType.OUTPUT)] * rows,
        )
