"""Eviction: a log above its limits loses its oldest rows in chunks, but no young ones.

An entry's age counts from the commit that last changed it, by the database's clock.
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

# Evicts one chunk, in one statement. It locks the head as a commit does, and does not raise the
# revision. The rest of the statement sees the database as it was before the lock. So it continues
# only if the head has not changed: then nothing was sealed or withdrawn meanwhile.
#
# A chunk is a prefix in the order of revisions. It ends before the first entry that is too young,
# even if the clock was set back and a later entry looks older. The last two entries of the current
# epoch stay: the tail, and the entry that becomes the last one if the tail is withdrawn (the next
# id must be higher than its id). An eviction removes a sixteenth of the limit more than needed.
# Otherwise the next append would need another eviction.
#
# Epoch openings and withdrawals are deleted with the entries that follow them. There are two
# exceptions: the opening of the oldest entry's epoch (reads of changes begin their search there),
# and events of the last hour (the limit of epochs per hour counts them). They are found in their
# order, so that a chunk does not read those of the next chunks.
_EVICT = """
WITH locked AS MATERIALIZED (
    SELECT task_id, revision, evicted_revision FROM log_heads
     WHERE task_id = $1 FOR UPDATE SKIP LOCKED
), head AS MATERIALIZED (
    SELECT h.task_id, h.epoch, h.entries, h.evicted_epoch, h.evicted_ordinal, h.evicted_revision,
           CASE WHEN over_rows > 0 THEN over_rows + $4::bigint / 16 ELSE 0 END AS rows_to_go,
           CASE WHEN over_bytes > 0 THEN over_bytes + $5::bigint / 16 ELSE 0 END AS bytes_to_go,
           CASE WHEN $6::interval = interval '0' THEN 'infinity'
                ELSE statement_timestamp() - $6::interval END AS old_enough
      FROM log_heads h
      JOIN locked USING (task_id, revision, evicted_revision)
     CROSS JOIN LATERAL (
        SELECT h.total_rows - h.evicted_rows + $2::bigint - $4::bigint AS over_rows,
               h.bytes - h.evicted_bytes + $3::bigint - $5::bigint AS over_bytes
     ) o
     WHERE h.task_id = $1
), oldest AS (
    SELECT e.row_id, e.size,
           row_number() OVER prefix AS number, sum(e.size) OVER prefix AS running,
           bool_and(e.committed_at <= head.old_enough) OVER prefix AS is_old,
           head.rows_to_go, head.bytes_to_go
      FROM head
     CROSS JOIN LATERAL (
        SELECT e.ctid AS row_id, e.epoch, e.ordinal, e.committed_at,
               octet_length(e.content) AS size
          FROM log_entries e
         WHERE e.task_id = $1 AND (e.epoch, e.ordinal) > (head.evicted_epoch, head.evicted_ordinal)
         ORDER BY e.epoch, e.ordinal LIMIT $7
     ) e
     WHERE e.epoch < head.epoch OR e.ordinal < head.entries - 2
    WINDOW prefix AS (ORDER BY e.epoch, e.ordinal)
), gone AS (
    DELETE FROM log_entries WHERE task_id = $1 AND ctid = ANY (ARRAY(
        SELECT o.row_id FROM oldest o
         WHERE (o.number <= o.rows_to_go OR o.running - o.size < o.bytes_to_go)
           AND o.running - o.size < $8 AND o.is_old))
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
    DELETE FROM log_events WHERE task_id = $1 AND ctid = ANY (ARRAY(
        SELECT v.ctid FROM log_events v
         WHERE v.task_id = $1 AND v.revision <= (SELECT revision FROM lost)
           AND (v.id IS NOT NULL OR v.epoch < (SELECT epoch FROM lost))
           AND v.committed_at < statement_timestamp() - interval '1 hour'
         ORDER BY v.revision LIMIT $7))
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
SELECT CASE WHEN EXISTS (SELECT 1 FROM written) THEN 'evicted'
            WHEN EXISTS (SELECT 1 FROM head) THEN 'nothing'
            WHEN EXISTS (SELECT 1 FROM log_heads WHERE task_id = $1) THEN 'locked'
            ELSE 'gone'
       END AS outcome,
       now.*
  FROM (SELECT 1) one
  LEFT JOIN LATERAL (
    SELECT * FROM written
    UNION ALL
    SELECT h.total_rows, h.bytes, h.evicted_revision, h.evicted_epoch, h.evicted_ordinal,
           h.evicted_rows, h.evicted_bytes
      FROM log_heads h WHERE h.task_id = $1 AND NOT EXISTS (SELECT 1 FROM written)
  ) now ON true
"""

_NEXT_IS_OLD_IN = """
    SELECT oldest.committed_at + $2::interval - statement_timestamp()
      FROM log_heads h
     CROSS JOIN LATERAL (
        SELECT e.committed_at FROM log_entries e
         WHERE e.task_id = $1 AND (e.epoch, e.ordinal) > (h.evicted_epoch, h.evicted_ordinal)
         ORDER BY e.epoch, e.ordinal LIMIT 1
     ) oldest
     WHERE h.task_id = $1 AND oldest.committed_at > statement_timestamp() - $2::interval"""

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
    """How much one log may hold, and the age below which no entry is evicted.

    `rows` counts entries, epoch openings and withdrawals; `bytes` counts content. Both count all
    epochs.
    """

    rows: int
    bytes: int
    min_retention: timedelta


class EvictionOutcome(enum.Enum):
    """The outcome of one chunk."""

    EVICTED = "evicted"
    NOTHING = "nothing"
    """The log is within its limits, or no entry is old enough."""
    LOCKED = "locked"
    """The head was locked, or it changed meanwhile: try again."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What a log holds now, counted as in LogHead."""

    outcome: EvictionOutcome
    rows: int
    bytes: int
    evicted: Evicted


class Evictions:
    """Evicts rows, and reads what was evicted. Raises StoreUnavailable."""

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
        """Evict one chunk if the log plus `rows` and `bytes_` would exceed its limits.

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

    async def old_in(self, task_id: UUID, min_retention: timedelta) -> timedelta | None:
        """Return how long the oldest entry is still too young to be evicted.

        None: it is old enough, or there is no entry.
        """
        async with self._connections.use() as connection:
            left: timedelta | None = await connection.fetchval(
                _NEXT_IS_OLD_IN, task_id, min_retention
            )
            return left

    async def past_limits(
        self, limits: LogLimits, *, after: UUID, rows: int = 1000
    ) -> tuple[Sequence[UUID], UUID | None]:
        """Check `rows` logs in the order of task ids; return those that exceed their limits.

        The second value is `after` of the next call; None: all logs were checked.
        """
        async with self._connections.use() as connection:
            seen = await connection.fetch(_PAST_LIMITS, after, rows, limits.rows, limits.bytes)
        past = [row["task_id"] for row in seen if row["is_past"]]
        return past, seen[-1]["task_id"] if len(seen) == rows else None

    async def evicted(self, task_id: UUID) -> Evicted:
        """Read what was evicted from the log. Raises TaskNotFound."""
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
