"""Commits: the changes of many tasks in one transaction, each with a compare-and-set."""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import TypeVar
from uuid import UUID

import asyncpg
import structlog

from tasklogs_server.domain.errors import LogCorrupt, StoreUnavailable, TaskLogsError
from tasklogs_server.store.commit_statements import write_commits
from tasklogs_server.store.connections import Connection, Connections
from tasklogs_server.store.errors import (
    concerns_one_task,
    is_connection_lost,
    is_row_held,
    may_concern_one_block,
    row_held,
)
from tasklogs_server.store.named_parameters import NamedStatement
from tasklogs_server.store.records import Commit, EntryRow

_log = structlog.get_logger(__name__)


# A batch in which a row is held is tried again in so many parts, and so are the parts. In all, a
# batch waits for so many locks: for a fifth of a second, on connections with a time-out of 10 ms.
_PARTS = 8
_LOCK_WAITS = 20


class Lane(enum.Enum):
    """The connection that writes a batch. No lane waits for the batches of another one."""

    BATCHES = "batches"
    ASIDE = "aside"
    """For commits of tasks whose rows are held."""
    LARGE = "large"
    """For commits that take long."""


class Outcome(enum.Enum):
    """The outcome of one task's commit."""

    COMMITTED = "committed"
    LOCKED = "locked"
    """Another transaction has locked a row of this task: the same commit may be tried again."""
    POSTPONED = "postponed"
    """Not tried, because rows of other tasks of the batch were locked: try it again at once."""
    FENCED = "fenced"
    """A later session has raised the fence."""
    MOVED = "moved"
    """The stored revision is not the commit's base revision, or the generation is another one."""
    GONE = "gone"
    """The task was deleted."""
    CORRUPT = "corrupt"
    """Postgres reports corruption in this task's rows."""
    REFUSED = "refused"
    """Postgres refused this task's rows. This says nothing about other tasks."""
    AWAY = "away"
    """Postgres could not be asked: it is certain that nothing was stored."""
    UNAVAILABLE = "unavailable"
    """Postgres accepts no writes now. For example, it is read-only, or its disk is full."""


# The task, if another transaction has locked its head. A task that is gone has none.
_LOCKED_HEAD = """
    WITH unlocked AS MATERIALIZED (
        SELECT task_id FROM log_heads WHERE task_id = $1 FOR UPDATE SKIP LOCKED
    )
    SELECT task_id FROM log_heads WHERE task_id = $1 AND NOT EXISTS (SELECT 1 FROM unlocked)"""

# Waits for a batch that has the lock; `lock_timeout` limits the wait.
_LOCK_HEAD = "SELECT FROM log_heads WHERE task_id = $1 FOR UPDATE"
# While commits are written together the head is locked, so an agent cannot connect.
_TOGETHER_SECONDS = 60.0

# The tail becomes one row again. The log does not change, so its revision stays.
_FOLD = NamedStatement("""
WITH locked AS MATERIALIZED (
    SELECT task_id FROM log_heads WHERE task_id = :task_id FOR UPDATE SKIP LOCKED
), written AS (
    UPDATE log_heads h SET tail_part_bytes = 0
      FROM locked
     WHERE h.task_id = :task_id AND h.task_id = locked.task_id
       AND h.fence = :fence AND h.revision = :revision AND h.tail_part_bytes > 0
    RETURNING h.task_id
), whole AS (
    UPDATE log_entries e
       SET revision = :row_revision, head = :head, content = :content,
           committed_at = statement_timestamp()
      FROM written
     WHERE e.task_id = :task_id AND e.epoch = :epoch AND e.ordinal = :ordinal
    RETURNING e.task_id
), folded AS (
    DELETE FROM log_tail_parts p USING written
     WHERE p.task_id = :task_id AND p.revision <= :revision
    RETURNING p.task_id
)
SELECT NOT EXISTS (SELECT 1 FROM locked)
   AND EXISTS (SELECT 1 FROM log_heads WHERE task_id = :task_id)
""")

# The time of an earlier session may arrive after a later session has raised the fence. It is stored
# too, unless a later time is stored already. SKIP LOCKED: a head that is held delays no other time.
_CONFIRM = """
    WITH unlocked AS MATERIALIZED (
        SELECT task_id FROM log_heads WHERE task_id = $1 FOR UPDATE SKIP LOCKED
    ), written AS (
        UPDATE log_heads h SET snapshot_at = greatest(h.snapshot_at, $3::timestamptz)
          FROM unlocked
         WHERE h.task_id = $1 AND h.task_id = unlocked.task_id AND h.fence >= $2
        RETURNING h.task_id
    )
    SELECT task_id FROM log_heads WHERE task_id = $1 AND NOT EXISTS (SELECT 1 FROM unlocked)"""
# Commits skip the heads that are locked here.
_CONFIRMED_AT_ONCE = 200


class LogWrites:
    """Writes logs.

    Raises StoreUnavailable if a connection is lost. It is then unknown whether the statement was
    executed.
    """

    def __init__(
        self,
        connections: Connections,
        *,
        aside: Connections,
        large: Connections,
        together: Connections,
    ) -> None:
        """`aside`: for what must not delay the batches. `together`: for `commit_together`."""
        self._is_sharded = connections.sharded
        self._aside = aside
        self._together = together
        self._lanes = {Lane.BATCHES: connections, Lane.ASIDE: aside, Lane.LARGE: large}

    async def commit(
        self, commits: Sequence[Commit], lane: Lane = Lane.BATCHES
    ) -> Mapping[UUID, Outcome]:
        """Write all commits in one transaction; at most one per task.

        If a row is held, the batch is tried again in parts, so that the other commits go on. If
        Postgres refuses a row, or cannot read its block, each commit is tried alone. So a bad
        commit does not stop the others.
        """
        connections = self._lanes[lane]
        outcomes: dict[UUID, Outcome] = {}
        parts: deque[Sequence[Commit]] = deque([commits])
        waits_left = _LOCK_WAITS
        while parts:
            part = parts.popleft()
            if waits_left == 0:
                outcomes.update((one.task_id, Outcome.POSTPONED) for one in part)
                continue
            try:
                outcomes.update(await self._commit_part(part, connections))
            except (StoreUnavailable, LogCorrupt, asyncpg.PostgresError) as error:
                if is_row_held(error):
                    waits_left -= 1
                    if len(part) == 1:
                        outcomes[part[0].task_id] = Outcome.LOCKED
                    else:
                        # First the parts of this part, so that each batch finds who is held.
                        parts.extendleft(_parts(part, _PARTS))
                elif not _may_concern_one_task(error):
                    outcomes.update((one.task_id, Outcome.UNAVAILABLE) for one in part)
                elif len(part) == 1:
                    outcomes[part[0].task_id] = _refused(part[0].task_id, error)
                else:
                    parts.extend(_parts(part, len(part)))
        return outcomes

    async def _commit_part(
        self, commits: Sequence[Commit], connections: Connections
    ) -> Mapping[UUID, Outcome]:
        # Heads are locked in the order of task ids, so that two batches cannot deadlock.
        ordered = sorted(commits, key=attrgetter("task_id"))
        is_sent = False
        try:
            async with connections.use() as connection:
                # A writer of a former generation builds on a history that may be lost.
                current = connection.generation
                writable = [one for one in ordered if one.head.generation == current]
                is_sent = True
                rows = await write_commits(connection, writable, self._is_sharded)
        except StoreUnavailable:
            if is_sent:
                raise
            return {one.task_id: Outcome.AWAY for one in commits}
        outcomes = {one.task_id: Outcome.MOVED for one in commits}
        outcomes.update((row["task_id"], Outcome(row["outcome"])) for row in rows)
        return outcomes

    async def locked_heads(self, task_ids: Sequence[UUID]) -> Collection[UUID]:
        """Return the tasks whose heads another transaction has locked now. It waits for none."""
        async with self._aside.use() as connection:
            rows = await connection.fetchmany(_LOCKED_HEAD, [(one,) for one in task_ids])
        return {row["task_id"] for row in rows}

    async def commit_together(self, task_id: UUID, commits: Iterable[Commit]) -> Outcome:
        """Write all these commits of one task in one transaction, or none.

        Each builds on the one before. They are taken from `commits` one by one, so that not all of
        them are in memory. The outcome is that of the first one that is not COMMITTED, if any.
        LOCKED: the head is held, and none was taken.
        """
        try:
            async with (
                self._together.use() as connection,
                asyncio.timeout(_TOGETHER_SECONDS),
                connection.transaction(),
            ):
                await _lock_head(connection, task_id)
                for commit in commits:
                    if commit.head.generation != connection.generation:
                        raise _RolledBack(Outcome.MOVED)
                    [row] = await write_commits(connection, [commit], self._is_sharded)
                    outcome = Outcome(row["outcome"])
                    if outcome is not Outcome.COMMITTED:
                        raise _RolledBack(outcome)
        except _RolledBack as rolled_back:
            return rolled_back.outcome
        except (StoreUnavailable, LogCorrupt, asyncpg.PostgresError) as error:
            if is_row_held(error):
                return Outcome.UNAVAILABLE
            if not concerns_one_task(error):
                raise
            return _refused(task_id, error)
        return Outcome.COMMITTED

    async def fold(
        self, task_id: UUID, *, generation: str, fence: int, revision: int, row: EntryRow
    ) -> None:
        """Write the tail as one row, `row`, if the stored fence and revision are these.

        If another transaction holds the task's rows, raises an error for `is_row_held`. Raises
        StoreUnavailable if the store has not this generation.
        """
        async with self._aside.use(generation=generation) as connection:
            arguments = _FOLD.arguments(
                {
                    "task_id": task_id,
                    "fence": fence,
                    "revision": revision,
                    "epoch": row.epoch,
                    "ordinal": row.ordinal,
                    "row_revision": row.revision,
                    "head": row.head,
                    "content": row.content,
                }
            )
            is_held = await connection.fetchval(_FOLD.sql, *arguments)
        if is_held:
            raise row_held()

    async def confirm(
        self, confirmed: Sequence[tuple[UUID, int, datetime]], *, generation: str
    ) -> Collection[UUID]:
        """Store for each task and fence a time at which the stored log matched the task app.

        Returns the tasks whose heads another transaction holds: nothing is stored for these, so
        the caller tries again. If Postgres refuses the time of one task, this is logged, and the
        other times are written. Raises StoreUnavailable if the store has not this generation.
        """
        held: set[UUID] = set()
        for part in _parts(sorted(confirmed), -(-len(confirmed) // _CONFIRMED_AT_ONCE)):
            try:
                held.update(await self._confirm(part, generation))
            except Exception as error:
                if not concerns_one_task(error) or is_row_held(error):
                    raise
                held.update(await self._confirm_each(part, generation))
        return held

    async def _confirm(
        self, part: Sequence[tuple[UUID, int, datetime]], generation: str
    ) -> Collection[UUID]:
        async with self._aside.use(generation=generation) as connection:
            rows = await connection.fetchmany(_CONFIRM, part)
        return [row["task_id"] for row in rows]

    async def _confirm_each(
        self, part: Sequence[tuple[UUID, int, datetime]], generation: str
    ) -> Collection[UUID]:
        held: set[UUID] = set()
        for one in part:
            try:
                held.update(await self._confirm([one], generation))
            except Exception as error:
                if not concerns_one_task(error) or is_row_held(error):
                    raise
                _log.error("store.row_refused", task=str(one[0]), error=type(error).__name__)
        return held


_Part = TypeVar("_Part")


def _parts(whole: Sequence[_Part], count: int) -> Sequence[Sequence[_Part]]:
    """Split into at most `count` parts of about the same size, none of them empty."""
    size = max(-(-len(whole) // max(count, 1)), 1)
    return [whole[first : first + size] for first in range(0, len(whole), size)]


async def _lock_head(connection: Connection, task_id: UUID) -> None:
    try:
        await connection.execute(_LOCK_HEAD, task_id)
    except asyncpg.LockNotAvailableError:
        raise _RolledBack(Outcome.LOCKED) from None


def _may_concern_one_task(error: Exception) -> bool:
    """Whether a commit's error may concern one task. Raises it if the connection was lost."""
    if not isinstance(error, StoreUnavailable):
        return True
    if error.__cause__ is None or is_connection_lost(error.__cause__):
        raise error
    return may_concern_one_block(error.__cause__)


@dataclass(eq=False)
class _RolledBack(TaskLogsError):
    """Ends the transaction, and leaves the connection usable."""

    outcome: Outcome


def _refused(task_id: UUID, error: Exception) -> Outcome:
    cause = error.__cause__ or error
    _log.error("commit.refused", task=str(task_id), error=type(cause).__name__)
    return Outcome.CORRUPT if isinstance(error, LogCorrupt) else Outcome.REFUSED
