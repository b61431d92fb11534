"""Purges: the rows of deleted tasks are deleted in chunks, the task's own row last."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from tasklogs_server.store.connections import Connections

if TYPE_CHECKING:
    import asyncpg

CHUNK_ROWS = 500
COUNTED_TASKS = 100_000
"""A backlog is counted up to this number."""
# An entry may have a megabyte, so a chunk is bounded by bytes, too.
CHUNK_BYTES = 4 * 1024 * 1024

# A backend that lives has seen no crash of Postgres and no failover. A number alone may be used
# again after a restart.
_BACKEND = "(pg_backend_pid() || ' of ' || pg_postmaster_start_time())"


def _chunk_of(table: str, key: str, after: str, size: str) -> str:
    """Return the parts of the statement that delete a chunk of one table.

    Rows that no other transaction has touched are deleted without a lock of their own, which would
    double the WAL. Of the others, the locked ones are skipped.
    """
    return f"""
{table}_sized AS (
    SELECT few.*, sum(few.size) OVER (ORDER BY {key}) - few.size AS before
      FROM task
     CROSS JOIN LATERAL (
        SELECT r.ctid AS row_id, r.xmax <> '0'::xid AS is_touched, {key}, {size} AS size
          FROM {table} r
         WHERE r.task_id = $1 AND ({key}) > ({after})
         ORDER BY {key} LIMIT $2
     ) few
), {table}_chunk AS MATERIALIZED (
    SELECT * FROM {table}_sized WHERE before < $9::bigint
), {table}_unlocked AS MATERIALIZED (
    SELECT r.ctid AS row_id FROM {table} r
     WHERE r.task_id = $1
       AND r.ctid = ANY (ARRAY(SELECT row_id FROM {table}_chunk WHERE is_touched))
       FOR UPDATE SKIP LOCKED
), {table}_gone AS (
    DELETE FROM {table}
     WHERE task_id = $1 AND ctid = ANY (ARRAY(SELECT row_id FROM {table}_chunk WHERE NOT is_touched
                                               UNION ALL SELECT row_id FROM {table}_unlocked))
    RETURNING {key}
), {table}_left AS MATERIALIZED (
    SELECT {key} FROM {table}_chunk EXCEPT SELECT {key} FROM {table}_gone
),"""


def _ends_of(table: str, *columns: str) -> str:
    """Return the columns that say where the chunk ended, and which row was left first."""
    order = ", ".join(columns)
    descending = ", ".join(f"{column} DESC" for column in columns)
    row = f"ARRAY[{order}]::bigint[]"
    return f"""
       (SELECT {row} FROM {table}_chunk ORDER BY {descending} LIMIT 1) AS {table}_end,
       (SELECT {row} FROM {table}_left ORDER BY {order} LIMIT 1) AS {table}_left,"""


# Deletes one chunk of each table. Only one server works at a task at a time: it has the lock of the
# task's row. A row that another transaction has locked is left, and nothing waits for it.
#
# The purge remembers where the last chunk ended. From the beginning, each chunk would walk over all
# rows that the earlier chunks deleted, until a vacuum removes them.
#
# The task's row goes when a pass from the beginning has left no row. A crash or a failover may
# undo deletions behind the remembered end. So a pass counts only if one backend did all of it ($7).
_CHUNK = f"""
WITH task AS MATERIALIZED (
    SELECT task_id FROM tasks
     WHERE task_id = $1 AND deleted_at IS NOT NULL FOR UPDATE SKIP LOCKED
),{_chunk_of("log_tail_parts", "revision", "$3::bigint", "octet_length(text)")}
{_chunk_of("log_entries", "epoch, ordinal", "$4::int, $5::int", "octet_length(content)")}
{_chunk_of("log_events", "revision", "$6::bigint", "0")}
progress AS MATERIALIZED (
    SELECT (SELECT count(*) FROM log_tail_parts_sized) >= $2
           OR (SELECT count(*) FROM log_entries_sized) >= $2
           OR (SELECT count(*) FROM log_events_sized) >= $2
           OR EXISTS (SELECT 1 FROM log_tail_parts_sized WHERE before >= $9::bigint)
           OR EXISTS (SELECT 1 FROM log_entries_sized WHERE before >= $9::bigint) AS has_more,
           EXISTS (SELECT 1 FROM log_tail_parts_left)
           OR EXISTS (SELECT 1 FROM log_entries_left)
           OR EXISTS (SELECT 1 FROM log_events_left) AS leaves_rows,
           {_BACKEND} AS backend
), done AS (
    DELETE FROM tasks t USING task, progress
     WHERE t.task_id = $1 AND t.task_id = task.task_id AND NOT has_more AND NOT leaves_rows
       AND NOT $8::boolean AND ($7::text IS NULL OR $7 = backend)
    RETURNING t.task_id
)
SELECT CASE WHEN EXISTS (SELECT 1 FROM done) THEN 'gone'
            WHEN EXISTS (SELECT 1 FROM task) THEN 'deleted'
            WHEN EXISTS (SELECT 1 FROM tasks WHERE task_id = $1 AND deleted_at IS NOT NULL)
            THEN 'held'
            ELSE 'gone'
       END AS outcome,{_ends_of("log_tail_parts", "revision")}
{_ends_of("log_entries", "epoch", "ordinal")}
{_ends_of("log_events", "revision")}
       has_more, backend
  FROM progress"""

_DELETED = """
    SELECT task_id, deleted_at FROM tasks
     WHERE deleted_at >= $1 AND (deleted_at, task_id) > ($1, $2)
     ORDER BY deleted_at, task_id LIMIT $3"""

_COUNT = """
    SELECT count(*) FROM (SELECT 1 FROM tasks WHERE deleted_at IS NOT NULL LIMIT $1) counted"""

DeletedPosition = tuple[datetime, UUID]
OLDEST: DeletedPosition = (datetime(1, 1, 1, tzinfo=UTC), UUID(int=0))
"""Before the task that was deleted first."""

_Ends = dict[str, Sequence[int]]
# Each key is compared with `>`, and all keys are 0 or more.
_BEGINNING: _Ends = {"log_tail_parts": (-1,), "log_entries": (-1, -1), "log_events": (-1,)}


class ChunkOutcome(enum.Enum):
    """What is left of a deleted task after a chunk."""

    GONE = "gone"
    """Nothing."""
    MORE = "more"
    HELD = "held"
    """Rows that another transaction has locked, and no others that this pass has not visited."""


@dataclass(slots=True)
class PurgeProgress:
    """How far the purge of one task has come. It is lost with the process, which costs no row."""

    task_id: UUID
    ends: _Ends
    """The last row of each table that the pass has visited."""
    left: _Ends
    """The first row of each table that the pass has left because it was locked."""
    backend: str | None = None
    """The backend that did the pass so far. None: the pass begins."""

    @classmethod
    def of(cls, task_id: UUID) -> PurgeProgress:
        """Return the progress of a purge that begins."""
        return cls(task_id, dict(_BEGINNING), {})

    def advance(self, row: asyncpg.Record) -> ChunkOutcome:
        """Continue after a chunk, or begin the next pass if this one is over."""
        for table in self.ends:
            if row[f"{table}_end"] is not None:
                self.ends[table] = row[f"{table}_end"]
            if row[f"{table}_left"] is not None:
                self.left.setdefault(table, row[f"{table}_left"])
        if self.backend is None:
            self.backend = row["backend"]
        if row["has_more"]:
            return ChunkOutcome.MORE
        if self.backend != row["backend"]:
            self.ends, self.left, self.backend = dict(_BEGINNING), {}, None
            return ChunkOutcome.MORE
        # All rows before the first one that was left are gone.
        for table, key in self.left.items():
            self.ends[table] = (*key[:-1], key[-1] - 1)
        self.left = {}
        return ChunkOutcome.HELD


class Purges:
    """Deletes the rows of deleted tasks. Raises StoreUnavailable."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def deleted(
        self, after: DeletedPosition = OLDEST, *, limit: int
    ) -> Sequence[DeletedPosition]:
        """Return up to `limit` deleted tasks that still have rows, in the order of deletion."""
        async with self._connections.use() as connection:
            rows = await connection.fetch(_DELETED, *after, limit)
        return [(row["deleted_at"], row["task_id"]) for row in rows]

    async def count(self) -> int:
        """Count the deleted tasks that still have rows, up to COUNTED_TASKS."""
        async with self._connections.use() as connection:
            count: int = await connection.fetchval(_COUNT, COUNTED_TASKS)
            return count

    async def purge(
        self,
        tasks: Sequence[PurgeProgress],
        *,
        chunk_rows: int = CHUNK_ROWS,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> Sequence[ChunkOutcome]:
        """Delete the next chunk of each of these deleted tasks, in one transaction.

        A chunk has at most `chunk_rows` rows of each table, and ends when it has `chunk_bytes`.
        """
        arguments = [arguments_of(one, chunk_rows, chunk_bytes) for one in tasks]
        async with self._connections.use() as connection:
            rows = await connection.fetchmany(_CHUNK, arguments)
        return [_outcome(one, row) for one, row in zip(tasks, rows, strict=True)]


def _outcome(progress: PurgeProgress, row: asyncpg.Record) -> ChunkOutcome:
    return progress.advance(row) if row["outcome"] == "deleted" else ChunkOutcome(row["outcome"])


def arguments_of(
    progress: PurgeProgress, chunk_rows: int, chunk_bytes: int = CHUNK_BYTES
) -> tuple[object, ...]:
    """Return the arguments of the statement that deletes the next chunk."""
    return (
        progress.task_id,
        chunk_rows,
        *progress.ends["log_tail_parts"],
        *progress.ends["log_entries"],
        *progress.ends["log_events"],
        progress.backend,
        bool(progress.left),
        chunk_bytes,
    )
