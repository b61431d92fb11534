"""Retirements: tasks that have been paused for long are found and deleted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from tasklogs_server.domain.status import Facts
from tasklogs_server.store.connections import Connection, Connections
from tasklogs_server.store.task_rows import (
    AGENT_CONNECTED,
    FACT_COLUMNS,
    HEARTBEAT,
    LeaseTerms,
    facts_of,
)
from tasklogs_server.store.tasks import MARK_DELETED

COUNTED_TASKS = 100_000
"""A backlog is counted up to this number."""


def _paused(age: str) -> str:
    """Return the condition that a task has been paused for `age`, as far as its facts say.

    The domain derives the status. These are the facts for which it is PAUSED, and an index over
    `changed_at` covers them. As a subquery, the time can bound the scan of that index.
    """
    return f"""
           t.transition IN ('STOP', 'DELETE') AND t.job_status = 'SUCCEEDED'
           AND t.deleted_at IS NULL
           AND t.changed_at < (SELECT clock_timestamp() - {age}::interval)"""


def _next_paused(age: str, changed_at: str, task_id: str, limit: str) -> str:
    """Return the clauses that select the longest paused tasks after a position."""
    return f"""
         WHERE {_paused(age)}
           AND t.changed_at >= {changed_at}
           AND (t.changed_at, t.task_id) > ({changed_at}, {task_id})
         ORDER BY t.changed_at, t.task_id LIMIT {limit}"""


# The last sign of life of a task: a report that changed its facts, a stream, a commit. Tail parts
# have no commit time, but only a connected stream writes parts. Revisions grow with every commit,
# so the last row of each table is the youngest.
def _activity(task: str) -> str:
    return f"""
    SELECT greatest(
               t.changed_at,
               CASE WHEN {AGENT_CONNECTED} THEN clock_timestamp()
                    ELSE coalesce(t.session_lost_at, {HEARTBEAT}) END,
               (SELECT v.committed_at FROM log_events v WHERE v.task_id = {task}
                 ORDER BY v.revision DESC LIMIT 1),
               (SELECT e.committed_at FROM log_entries e WHERE e.task_id = {task}
                 ORDER BY e.epoch DESC, e.ordinal DESC LIMIT 1)
           ) AS active_at
    OFFSET 0"""


# Looks at one of the longest paused tasks, unless it is locked, and returns whether it is to be
# retired. If not, `changed_at` becomes its last sign of life, so that no later look reads its log
# until it can be due. Without this, every look would read the log of each task that was paused long
# ago and written to lately. Nothing but the retention uses `changed_at`.
_LOOK = f"""
    WITH seen AS MATERIALIZED (
        SELECT t.task_id, t.changed_at FROM tasks t
         WHERE t.task_id = $3 AND {_paused("$2")} FOR UPDATE SKIP LOCKED
    ), looked AS MATERIALIZED (
        SELECT seen.*, a.active_at
          FROM seen JOIN tasks t ON t.task_id = $3 CROSS JOIN LATERAL ({_activity("$3")}) a
    ), moved AS (
        UPDATE tasks t SET changed_at = greatest(t.changed_at, looked.active_at) FROM looked
         WHERE t.task_id = $3 AND t.task_id = looked.task_id
           AND looked.active_at >= statement_timestamp() - $2::interval
        RETURNING t.task_id
    )
    SELECT task_id, NOT EXISTS (SELECT 1 FROM moved) AS is_due FROM looked"""

_LIST = f"SELECT t.changed_at, t.task_id FROM tasks t {_next_paused('$1', '$2', '$3', '$4')}"

# The locks that reports, sessions, commits and deletions take. Tasks that another transaction has
# locked are not returned, and nothing waits for them. A separate, later statement checks the
# condition. So it sees what the earlier holders of these locks committed.
_LOCK_TASK = """
    SELECT task_id, owner, name FROM tasks
     WHERE task_id = $1 AND deleted_at IS NULL FOR UPDATE SKIP LOCKED"""
_LOCK_HEAD = "SELECT task_id FROM log_heads WHERE task_id = $1 FOR UPDATE SKIP LOCKED"
_LOCK_NAME = """
    SELECT task_id FROM task_names
     WHERE owner = $1 AND name = $2 AND task_id = $3 FOR UPDATE SKIP LOCKED"""

_STILL_TO_RETIRE = f"""
    SELECT t.task_id, {FACT_COLUMNS}
      FROM tasks t CROSS JOIN LATERAL ({_activity("$3")}) a
     WHERE t.task_id = $3 AND {_paused("$2")}
       AND a.active_at < clock_timestamp() - $2::interval"""

_COUNT = f"""
    SELECT count(*) FROM (SELECT 1 FROM tasks t WHERE {_paused("$1")} LIMIT $2) counted"""

PausedPosition = tuple[datetime, UUID]
OLDEST: PausedPosition = (datetime(1, 1, 1, tzinfo=UTC), UUID(int=0))
"""Before the task that has been paused for the longest time."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look at the longest paused tasks found."""

    due: Sequence[UUID]
    """To be retired."""
    next_position: PausedPosition | None
    """Where the next look continues. None: it was the last."""


class Retirements:
    """Finds and deletes tasks that have been paused for long. Raises StoreUnavailable.

    `age`: how long, by the database's clock. Since then no report changed the facts, no stream was
    connected and nothing was committed. No method waits for a row that another transaction has
    locked.
    """

    def __init__(self, connections: Connections, lease_terms: LeaseTerms) -> None:
        self._connections = connections
        self._process_id = lease_terms.process_id

    async def look(self, age: timedelta, after: PausedPosition = OLDEST, *, limit: int) -> Looked:
        """Look at the next `limit` tasks that are not locked, the longest paused first."""
        async with self._connections.use() as connection:
            next_ = await connection.fetch(_LIST, age, *after, limit)
            tasks = sorted(row["task_id"] for row in next_)
            arguments = [(self._process_id, age, one) for one in tasks]
            rows = await connection.fetchmany(_LOOK, arguments) if tasks else ()
        due = {row["task_id"] for row in rows if row["is_due"]}
        last = (next_[-1]["changed_at"], next_[-1]["task_id"]) if len(next_) == limit else None
        return Looked([row["task_id"] for row in next_ if row["task_id"] in due], last)

    async def look_at(self, task_id: UUID, age: timedelta) -> bool:
        """Look at one task as `look` does. Return whether it is to be retired."""
        async with self._connections.use() as connection:
            row = await connection.fetchrow(_LOOK, self._process_id, age, task_id)
        return row is not None and row["is_due"]

    async def list_(
        self, age: timedelta, after: PausedPosition, *, limit: int
    ) -> Sequence[PausedPosition]:
        """Return the tasks that `look` would look at, and locked ones. This reads no log."""
        async with self._connections.use() as connection:
            rows = await connection.fetch(_LIST, age, *after, limit)
        return [(row["changed_at"], row["task_id"]) for row in rows]

    async def retire(
        self, tasks: Sequence[UUID], age: timedelta, *, is_paused: Callable[[Facts], bool]
    ) -> Sequence[UUID]:
        """Delete those that are still paused for longer than `age`, in one transaction.

        Return which were deleted. Locked tasks are not.
        """
        async with self._connections.use() as connection, connection.transaction():
            locked = await _lock(connection, tasks)
            arguments = [(self._process_id, age, one) for one in locked]
            rows = await connection.fetchmany(_STILL_TO_RETIRE, arguments) if locked else ()
            due = [row["task_id"] for row in rows if is_paused(facts_of(row))]
            if due:
                await connection.execute(MARK_DELETED, due)
            return due

    async def count(self, age: timedelta) -> int:
        """Count the tasks that `look` would look at, up to COUNTED_TASKS. This reads no log."""
        async with self._connections.use() as connection:
            count: int = await connection.fetchval(_COUNT, age, COUNTED_TASKS)
            return count


async def _lock(connection: Connection, tasks: Sequence[UUID]) -> Sequence[UUID]:
    """Lock the rows of those tasks that no other transaction has locked, in the order of ids."""
    found = await connection.fetchmany(_LOCK_TASK, [(one,) for one in sorted(tasks)])
    if not found:
        return ()
    heads = await connection.fetchmany(_LOCK_HEAD, [(row["task_id"],) for row in found])
    names = await connection.fetchmany(
        _LOCK_NAME, [(row["owner"], row["name"], row["task_id"]) for row in found]
    )
    both = {row["task_id"] for row in heads} & {row["task_id"] for row in names}
    return [row["task_id"] for row in found if row["task_id"] in both]
