"""Commits: many tasks' changes in one transaction, each a compare-and-set of its own."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import structlog

from tasklogs_server.domain.errors import LogCorrupt, StoreUnavailable
from tasklogs_server.store.connections import Connections
from tasklogs_server.store.errors import is_connection_lost, may_be_of_one_place
from tasklogs_server.store.many_tasks import each_or_alone
from tasklogs_server.store.records import Commit, EntryRow, EpochOpened

_log = structlog.get_logger(__name__)


class Outcome(enum.Enum):
    """What became of one task's commit."""

    COMMITTED = "committed"
    LOCKED = "locked"
    """Another transaction holds the head: the same commit may be tried again."""
    FENCED = "fenced"
    """A later session has raised the fence."""
    MOVED = "moved"
    """The revision is another one: whoever built on it has lost."""
    GONE = "gone"
    """The task was deleted."""
    CORRUPT = "corrupt"
    """Postgres reports corruption where this task's rows are."""
    REFUSED = "refused"
    """Postgres refused this task's rows; the other tasks' are not concerned."""
    UNAVAILABLE = "unavailable"
    """Postgres takes nothing of anybody just now: read-only, say, or its disk is full."""


# One statement per task, pipelined over all tasks of a batch: every query stays on one task, and
# nothing is written for a task whose head does not match. SKIP LOCKED: a batch waits for nobody.
# The inserts hang on `written`, so the rows of a lost compare-and-set are never looked at. Parts
# are deleted by "up to the base revision", so the part that this very commit adds is not meant.
_COMMIT = """
WITH locked AS MATERIALIZED (
    SELECT task_id, fence FROM log_heads WHERE task_id = $1 FOR UPDATE SKIP LOCKED
), written AS (
    UPDATE log_heads h
       SET epoch = $4, entries = $5, revision = $6, bytes = $7, digest = $8,
           snapshot_at = greatest(h.snapshot_at, $9),
           tail_id = $10, tail_type = $11, tail_seconds = $12, tail_nanos = $13,
           tail_revision = $14, tail_dropped = $15, tail_part_bytes = $16, total_rows = $33
      FROM locked
     WHERE h.task_id = locked.task_id AND h.fence = $2 AND h.revision = $3
    RETURNING h.task_id
), withdrawn AS (
    DELETE FROM log_entries e USING written, unnest($17::int[], $18::int[]) AS w (epoch, ordinal)
     WHERE e.task_id = $1 AND e.epoch = w.epoch AND e.ordinal = w.ordinal
), whole AS (
    INSERT INTO log_entries (task_id, epoch, ordinal, id, revision, head, content)
    SELECT $1, e.*
      FROM written, unnest($19::int[], $20::int[], $21::int[], $22::bigint[], $23::bytea[],
                           $24::bytea[]) AS e (epoch, ordinal, id, revision, head, content)
    ON CONFLICT (task_id, epoch, ordinal) DO UPDATE
       SET id = excluded.id, revision = excluded.revision, head = excluded.head,
           content = excluded.content
), folded AS (
    DELETE FROM log_tail_parts p USING written
     WHERE $25::boolean AND p.task_id = $1 AND p.revision <= $3
), grown AS (
    INSERT INTO log_tail_parts (task_id, revision, keep_bytes, text)
    SELECT $1, $26::bigint, $27::int, $28::bytea FROM written WHERE $26 IS NOT NULL
), noted AS (
    INSERT INTO log_events (task_id, revision, epoch, ordinal, id)
    SELECT $1, v.*
      FROM written, unnest($29::bigint[], $30::int[], $31::int[], $32::int[])
                 AS v (revision, epoch, ordinal, id)
)
SELECT $1 AS task_id,
       CASE WHEN EXISTS (SELECT FROM written) THEN 'committed'
            WHEN EXISTS (SELECT FROM locked WHERE fence <> $2) THEN 'fenced'
            WHEN EXISTS (SELECT FROM locked) THEN 'moved'
            WHEN EXISTS (SELECT FROM log_heads WHERE task_id = $1) THEN 'locked'
            ELSE 'gone'
       END AS outcome
"""

# The tail as one row again, without a change of the log: no revision is taken.
_FOLD = """
WITH written AS (
    UPDATE log_heads SET tail_part_bytes = 0
     WHERE task_id = $1 AND fence = $2 AND revision = $3 AND tail_part_bytes > 0
    RETURNING task_id
), whole AS (
    UPDATE log_entries e SET revision = $6, head = $7, content = $8
      FROM written
     WHERE e.task_id = $1 AND e.epoch = $4 AND e.ordinal = $5
)
DELETE FROM log_tail_parts p USING written WHERE p.task_id = $1 AND p.revision <= $3
"""

# A later session does not undo what an earlier one knew.
_CONFIRM = """
    UPDATE log_heads SET snapshot_at = greatest(snapshot_at, $3)
     WHERE task_id = $1 AND fence >= $2"""


class LogWrites:
    """What the group commit does to the store.

    Raises StoreUnavailable where a connection is lost: nobody knows what became of the statement.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def commit(self, commits: Sequence[Commit]) -> Mapping[UUID, Outcome]:
        """Write all commits in one transaction; at most one per task.

        Where Postgres refuses a row, or cannot read the block that it belongs to, each commit is
        tried alone, so that a bad one stops nobody else.
        """
        try:
            return await self._commit(commits)
        except (StoreUnavailable, LogCorrupt, asyncpg.PostgresError) as error:
            if isinstance(error, StoreUnavailable):
                if error.__cause__ is None or is_connection_lost(error.__cause__):
                    raise
                if not may_be_of_one_place(error.__cause__):
                    return {one.task_id: Outcome.UNAVAILABLE for one in commits}
            if len(commits) == 1:
                cause = error.__cause__ or error
                _log.error(
                    "commit.refused", task=str(commits[0].task_id), error=type(cause).__name__
                )
                refused = Outcome.CORRUPT if isinstance(error, LogCorrupt) else Outcome.REFUSED
                return {commits[0].task_id: refused}
        outcomes: dict[UUID, Outcome] = {}
        for one in commits:
            outcomes.update(await self.commit([one]))
        return outcomes

    async def fold(self, task_id: UUID, *, fence: int, revision: int, row: EntryRow) -> None:
        """Write the tail as one row, `row`, if fence and revision still stand."""
        async with self._connections.use() as connection:
            await connection.execute(
                _FOLD,
                task_id,
                fence,
                revision,
                row.epoch,
                row.ordinal,
                row.revision,
                row.head,
                row.content,
            )

    async def confirm(self, confirmed: Sequence[tuple[UUID, int, datetime]]) -> None:
        """Persist, per task and fence, the moment of which the stored log is a true picture.

        What cannot be written of one task is logged; the others' is.
        """
        await each_or_alone(self._connections, _CONFIRM, sorted(confirmed))

    async def _commit(self, commits: Sequence[Commit]) -> Mapping[UUID, Outcome]:
        # Heads in the order of task ids: two batches cannot wait for each other in a circle.
        ordered = sorted(commits, key=lambda one: one.task_id)
        async with self._connections.use() as connection:
            rows = await connection.fetchmany(_COMMIT, [_arguments(one) for one in ordered])
        return {row["task_id"]: Outcome(row["outcome"]) for row in rows}


def _arguments(commit: Commit) -> tuple[object, ...]:
    head, tail, part = commit.head, commit.head.tail, commit.part
    # A place that is taken again by a row is overwritten: one statement must not touch a row twice.
    taken = {(row.epoch, row.ordinal) for row in commit.rows}
    withdrawn = [
        event
        for event in commit.events
        if not isinstance(event, EpochOpened) and (event.epoch, event.ordinal) not in taken
    ]
    return (
        commit.task_id,
        commit.fence,
        commit.base_revision,
        head.epoch,
        head.entries,
        head.revision,
        head.bytes,
        head.digest,
        head.snapshot_at,
        *(
            (None, None, None, None, None, None, 0)
            if tail is None
            else (
                tail.id,
                int(tail.type),
                *tail.time,
                tail.revision,
                tail.dropped_bytes,
                tail.part_bytes,
            )
        ),
        [event.epoch for event in withdrawn],
        [event.ordinal for event in withdrawn],
        [row.epoch for row in commit.rows],
        [row.ordinal for row in commit.rows],
        [row.id for row in commit.rows],
        [row.revision for row in commit.rows],
        [row.head for row in commit.rows],
        [row.content for row in commit.rows],
        commit.drops_parts,
        *((None, None, None) if part is None else (part.revision, part.keep_bytes, part.text)),
        [event.revision for event in commit.events],
        [event.epoch for event in commit.events],
        [None if isinstance(event, EpochOpened) else event.ordinal for event in commit.events],
        [None if isinstance(event, EpochOpened) else event.id for event in commit.events],
        head.rows,
    )
