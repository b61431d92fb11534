"""Eviction: a log past its limits loses its oldest rows, chunk by chunk, but no young ones.

How old an entry is, the marks tell: at `marked_at`, by the database's clock, the log stood at
`revision`, so all up to there is at least that old. An entry counts as old enough when a mark at or
beyond it is: never too early, and late by no more than what lies between two marks.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from tasklogs_server.domain.errors import TaskNotFound
from tasklogs_server.store.connections import Connections
from tasklogs_server.store.records import Evicted
from tasklogs_server.store.task_rows import evicted_of

if TYPE_CHECKING:
    import asyncpg

CHUNK_ROWS = 500
CHUNK_BYTES = 4 * 1024 * 1024

# One chunk, in one statement that takes the head's lock as a commit does, and takes no revision.
# The rest of the statement sees the database as it was before the lock, so it goes on only where
# the head is still the same: then nothing was sealed or withdrawn meanwhile.
#
# What goes is a prefix in the order of revisions. The last two entries of the current epoch stay:
# the tail, and the one that is the last where the tail is withdrawn (its id bounds the next one's).
# A chunk takes a sixteenth of the limit more than it must, or the next append would need another.
#
# Epoch openings and withdrawals go with the entries before which they came, save: the opening of
# the epoch that the oldest entry is in (reads of changes begin their search there), and those of
# the last hour (the limit of epochs per hour counts them).
_EVICT = """
WITH locked AS MATERIALIZED (
    SELECT task_id, revision, evicted_revision FROM log_heads
     WHERE task_id = $1 FOR UPDATE SKIP LOCKED
), head AS MATERIALIZED (
    SELECT h.task_id, h.epoch, h.entries, h.evicted_epoch, h.evicted_ordinal, h.evicted_revision,
           CASE WHEN over_rows > 0 THEN over_rows + $4::bigint / 16 ELSE 0 END AS rows_to_go,
           CASE WHEN over_bytes > 0 THEN over_bytes + $5::bigint / 16 ELSE 0 END AS bytes_to_go,
           CASE WHEN $6::interval = interval '0' THEN h.revision
                ELSE (SELECT max(m.revision) FROM log_marks m
                       WHERE m.task_id = $1 AND m.marked_at <= clock_timestamp() - $6::interval)
           END AS old_revision
      FROM log_heads h
      JOIN locked USING (task_id, revision, evicted_revision)
     CROSS JOIN LATERAL (
        SELECT h.total_rows - h.evicted_rows + $2::bigint - $4::bigint AS over_rows,
               h.bytes - h.evicted_bytes + $3::bigint - $5::bigint AS over_bytes
     ) o
     WHERE h.task_id = $1
), oldest AS (
    SELECT e.place, e.size,
           row_number() OVER prefix AS number, sum(e.size) OVER prefix AS running,
           head.rows_to_go, head.bytes_to_go
      FROM head
     CROSS JOIN LATERAL (
        SELECT e.ctid AS place, e.epoch, e.ordinal, e.revision, octet_length(e.content) AS size
          FROM log_entries e
         WHERE e.task_id = $1 AND (e.epoch, e.ordinal) > (head.evicted_epoch, head.evicted_ordinal)
         ORDER BY e.epoch, e.ordinal LIMIT $7
     ) e
     WHERE e.revision <= head.old_revision
       AND (e.epoch < head.epoch OR e.ordinal < head.entries - 2)
    WINDOW prefix AS (ORDER BY e.epoch, e.ordinal)
), gone AS (
    DELETE FROM log_entries WHERE ctid = ANY (ARRAY(
        SELECT o.place FROM oldest o
         WHERE (o.number <= o.rows_to_go OR o.running - o.size < o.bytes_to_go)
           AND o.running - o.size < $8))
    RETURNING epoch, ordinal, revision, octet_length(content) AS size
), lost AS MATERIALIZED (
    SELECT coalesce(sum(gone.size), 0) AS bytes,
           greatest(head.evicted_revision, max(gone.revision)) AS revision,
           greatest(head.evicted_epoch, max(gone.epoch)) AS epoch
      FROM head LEFT JOIN gone ON true
     WHERE head.rows_to_go > 0 OR head.bytes_to_go > 0
     GROUP BY head.evicted_revision, head.evicted_epoch
    HAVING head.evicted_revision > 0 OR count(gone.revision) > 0
), forgotten AS (
    DELETE FROM log_events WHERE ctid = ANY (ARRAY(
        SELECT v.ctid FROM log_events v, lost
         WHERE v.task_id = $1 AND v.revision <= lost.revision
           AND (v.id IS NOT NULL OR v.epoch < lost.epoch)
           AND v.committed_at < clock_timestamp() - interval '1 hour'
         LIMIT $7))
    RETURNING revision
), written AS (
    UPDATE log_heads h
       SET evicted_rows = h.evicted_rows + counted.rows,
           evicted_bytes = h.evicted_bytes + counted.bytes,
           evicted_revision = counted.revision,
           evicted_epoch = coalesce(last.epoch, h.evicted_epoch),
           evicted_ordinal = coalesce(last.ordinal, h.evicted_ordinal)
      FROM (SELECT (SELECT count(*) FROM gone) + (SELECT count(*) FROM forgotten) AS rows,
                   lost.bytes, lost.revision
              FROM lost) counted
      LEFT JOIN (SELECT epoch, ordinal FROM gone ORDER BY epoch DESC, ordinal DESC LIMIT 1) last
             ON true
     WHERE h.task_id = $1 AND counted.rows > 0
    RETURNING h.total_rows, h.bytes, h.evicted_revision, h.evicted_epoch, h.evicted_ordinal,
              h.evicted_rows, h.evicted_bytes
)
SELECT CASE WHEN EXISTS (SELECT FROM written) THEN 'evicted'
            WHEN EXISTS (SELECT FROM head) THEN 'nothing'
            WHEN EXISTS (SELECT FROM log_heads WHERE task_id = $1) THEN 'locked'
            ELSE 'gone'
       END AS outcome,
       now.*
  FROM (SELECT 1) one
  LEFT JOIN LATERAL (
    SELECT * FROM written
    UNION ALL
    SELECT h.total_rows, h.bytes, h.evicted_revision, h.evicted_epoch, h.evicted_ordinal,
           h.evicted_rows, h.evicted_bytes
      FROM log_heads h WHERE h.task_id = $1 AND NOT EXISTS (SELECT FROM written)
  ) now ON true
"""

# Only the last mark that is old enough matters, and those that will be. FOR KEY SHARE: whoever
# deletes the head waits, so that no mark is left of a deleted task. A commit holds its head for a
# moment only: the mark is then made another time.
_MARK = """
WITH head AS MATERIALIZED (
    SELECT task_id, revision FROM log_heads
     WHERE task_id = $1 AND revision > 0 FOR KEY SHARE SKIP LOCKED
), latest AS (
    SELECT max(revision) AS revision, max(marked_at) AS marked_at FROM log_marks
     WHERE task_id = $1
), marked AS (
    INSERT INTO log_marks (task_id, revision)
    SELECT head.task_id, head.revision
      FROM head, latest
     WHERE head.revision > coalesce(latest.revision, 0)
       AND coalesce(latest.marked_at <= clock_timestamp() - $2::interval, true)
    ON CONFLICT (task_id, revision) DO NOTHING
    RETURNING revision
), pruned AS (
    DELETE FROM log_marks m
     WHERE m.task_id = $1
       AND m.revision < (SELECT max(o.revision) FROM log_marks o
                          WHERE o.task_id = $1
                            AND o.marked_at <= clock_timestamp() - $3::interval)
)
SELECT EXISTS (SELECT FROM marked)
       OR EXISTS (SELECT FROM head, latest WHERE head.revision <= latest.revision)
       OR NOT EXISTS (SELECT FROM log_heads WHERE task_id = $1 AND revision > 0)
"""

_NEXT_IS_OLD_IN = """
    SELECT min(m.marked_at) + $2::interval - clock_timestamp()
      FROM log_marks m
      JOIN log_heads h USING (task_id)
     WHERE m.task_id = $1 AND m.revision > h.evicted_revision
       AND m.marked_at > clock_timestamp() - $2::interval"""

_PAST_LIMITS = """
    SELECT task_id, total_rows - evicted_rows > $3 OR bytes - evicted_bytes > $4 AS is_past
      FROM log_heads
     WHERE task_id > $1
     ORDER BY task_id LIMIT $2"""

_EVICTED = """
    SELECT evicted_revision, evicted_epoch, evicted_ordinal, evicted_rows, evicted_bytes
      FROM log_heads WHERE task_id = $1"""


@dataclass(frozen=True, slots=True)
class LogLimits:
    """What one log may hold, and how long nothing of it is evicted.

    `rows` are entries, epoch openings and withdrawals, `bytes` is content; both over all epochs.
    """

    rows: int
    bytes: int
    min_retention: timedelta


class EvictionOutcome(enum.Enum):
    """What became of one chunk."""

    EVICTED = "evicted"
    NOTHING = "nothing"
    """There is room, or nothing that is old enough."""
    LOCKED = "locked"
    """The head was held, or has moved: try again."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What a log holds now: as LogHead has it."""

    outcome: EvictionOutcome
    rows: int
    bytes: int
    evicted: Evicted


class Evictions:
    """The rows that eviction takes, and the marks that tell how old they are.

    Raises StoreUnavailable.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def evict(
        self,
        task_id: UUID,
        limits: LogLimits,
        *,
        rows: int = 0,
        bytes_: int = 0,
        chunk_rows: int = CHUNK_ROWS,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> Holding:
        """Evict one chunk where the log and so much more would be past its limits.

        Raises TaskNotFound.
        """
        async with self._connections.use() as connection:
            row = await connection.fetchrow(
                _EVICT,
                task_id,
                rows,
                bytes_,
                limits.rows,
                limits.bytes,
                limits.min_retention,
                chunk_rows,
                chunk_bytes,
            )
        assert row is not None
        if row["outcome"] == "gone" or row["total_rows"] is None:
            raise TaskNotFound(str(task_id))
        return _holding_of(row)

    async def mark(self, task_id: UUID, *, every: timedelta, min_retention: timedelta) -> bool:
        """Note where the log stands now; at most one mark in `every`.

        Returns whether all that is stored is marked. Marks that `min_retention` makes superfluous
        go.
        """
        async with self._connections.use() as connection:
            return bool(await connection.fetchval(_MARK, task_id, every, min_retention))

    async def old_in(self, task_id: UUID, min_retention: timedelta) -> timedelta | None:
        """Return when more of the log will be old enough to go; None: no mark tells."""
        async with self._connections.use() as connection:
            left: timedelta | None = await connection.fetchval(
                _NEXT_IS_OLD_IN, task_id, min_retention
            )
            return left

    async def past_limits(
        self, limits: LogLimits, *, after: UUID, rows: int = 1000
    ) -> tuple[Sequence[UUID], UUID | None]:
        """Look at `rows` logs in the order of task ids; return those past their limits.

        And the place to go on from: None at the end.
        """
        async with self._connections.use() as connection:
            seen = await connection.fetch(_PAST_LIMITS, after, rows, limits.rows, limits.bytes)
        past = [row["task_id"] for row in seen if row["is_past"]]
        return past, seen[-1]["task_id"] if len(seen) == rows else None

    async def evicted(self, task_id: UUID) -> Evicted:
        """Read what the log has lost. Raises TaskNotFound."""
        async with self._connections.use() as connection:
            row = await connection.fetchrow(_EVICTED, task_id)
        if row is None:
            raise TaskNotFound(str(task_id))
        return evicted_of(row)


def _holding_of(row: asyncpg.Record) -> Holding:
    evicted = evicted_of(row)
    return Holding(
        EvictionOutcome(row["outcome"]),
        row["total_rows"] - evicted.rows,
        row["bytes"] - evicted.bytes,
        evicted,
    )
