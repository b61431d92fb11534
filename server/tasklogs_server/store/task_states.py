"""The states of tasks and their logs: what a read decides by, without a page of entries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from uuid import UUID

from tasklogs_server.domain.errors import TaskNotFound
from tasklogs_server.domain.names import TaskId, TaskRef
from tasklogs_server.domain.reports import expire_lease
from tasklogs_server.domain.status import StatusDetail, derive
from tasklogs_server.domain.synced import StoredState
from tasklogs_server.store.connections import Connection, Connections
from tasklogs_server.store.task_rows import (
    FACT_COLUMNS,
    LEASE_OVER,
    SESSION_PROCESS,
    LeaseTerms,
    facts_of,
)

if TYPE_CHECKING:
    import asyncpg

# `xmin`: the transaction that wrote this version of the head. It is what tells whether a page is
# still true: see LogVersion. Postgres may not tell its generation. After a failover or a restored
# backup another Postgres process answers, and its start time tells that, too.
STATE_COLUMNS = f"""
    t.task_id, {FACT_COLUMNS},
    CASE WHEN t.standalone THEN ({LEASE_OVER}) ELSE false END AS lease_over,
    {SESSION_PROCESS} AS session_process,
    h.epoch, h.revision, h.fence, h.snapshot_at, h.xmin AS head_xmin,
    pg_postmaster_start_time() AS serves_since"""

# One statement for the tasks of many reads. It returns a row for each, with NULLs if there is no
# such task. The LATERAL joins with OFFSET 0 are look-ups by key, whatever the planner thinks of the
# length of the arrays.
_STATES = f"""
SELECT {STATE_COLUMNS}
  FROM unnest($4::uuid[], $5::text[], $6::text[])
       WITH ORDINALITY AS asked (task_id, owner, name, number)
  LEFT JOIN LATERAL (
    SELECT * FROM tasks t
     WHERE t.task_id = coalesce(
               asked.task_id,
               (SELECT n.task_id FROM task_names n
                 WHERE n.owner = asked.owner AND n.name = asked.name))
       AND t.owner = coalesce(asked.owner, t.owner)
       AND t.deleted_at IS NULL
    OFFSET 0
  ) t ON true
  LEFT JOIN LATERAL (
    SELECT h.*, h.xmin FROM log_heads h WHERE h.task_id = t.task_id
    OFFSET 0
  ) h ON true
 ORDER BY asked.number"""

# The same where names and tasks are on different servers. It has a row for each task that exists.
_NAMED = """
    SELECT n.owner, n.name, n.task_id
      FROM unnest($1::text[], $2::text[]) AS asked (owner, name)
      JOIN task_names n ON n.owner = asked.owner AND n.name = asked.name"""
_STATES_SHARDED = f"""
SELECT {STATE_COLUMNS}, t.owner
  FROM tasks t JOIN log_heads h ON h.task_id = t.task_id
 WHERE t.task_id = ANY ($4::uuid[]) AND t.deleted_at IS NULL"""


class LogVersion(NamedTuple):
    """What the content of every page of a log depends on.

    If two reads of a task find the same version, a range of its log has the same entries: each
    statement that writes rows of a log writes its head, too, in the same transaction. The list of
    them is in docs/design.md.
    """

    generation: str
    """That of the connection."""
    serves_since: datetime
    """When this Postgres process was started."""
    head_xmin: int
    """The transaction that wrote the head last."""
    epoch: int
    revision: int


@dataclass(frozen=True)
class TaskState:
    """A task's status and the state of its log, from one snapshot."""

    task_id: UUID
    detail: StatusDetail
    fence: int
    snapshot_at: datetime | None
    version: LogVersion
    session_process: UUID | None = None
    """The process whose session the task's row names. None: none, or it was lost."""
    row: asyncpg.Record | None = field(default=None, repr=False)
    """What all of this was made from, if it was read without a page."""

    @property
    def epoch(self) -> int:
        """The current epoch."""
        return self.version.epoch

    @property
    def revision(self) -> int:
        """The log's revision."""
        return self.version.revision

    @cached_property
    def stored(self) -> StoredState:
        """What the task's rows said, to compare with a sync."""
        return StoredState(
            self.fence, self.revision, self.detail.facts.start_build, self.session_process
        )


def state_of(row: asyncpg.Record, generation: str, *, keep: bool = False) -> TaskState:
    """Return the state in a row with STATE_COLUMNS, read in this generation.

    `keep`: hold the row, to compare it with a later one.
    """
    facts = facts_of(row)
    return TaskState(
        row["task_id"],
        derive(expire_lease(facts) if row["lease_over"] else facts),
        row["fence"],
        row["snapshot_at"],
        LogVersion(
            generation,
            row["serves_since"],
            row["head_xmin"],
            row["epoch"],
            row["revision"],
        ),
        row["session_process"],
        row if keep else None,
    )


class AskedState(NamedTuple):
    """A task of which the state is asked, and the state that was found last, if that is known.

    It is returned again if nothing of it has changed.
    """

    ref: TaskRef
    known: TaskState | None


Found: TypeAlias = TaskState | Exception


class TaskStates:
    """Reads states. Raises StoreUnavailable, and LogCorrupt if Postgres reports corruption."""

    def __init__(self, connections: Connections, lease_terms: LeaseTerms) -> None:
        self._connections = connections
        self._lease_terms = lease_terms

    async def read(self, take: Callable[[], Sequence[AskedState]]) -> Sequence[Found]:
        """Read the states of all that `take` returns, in its order.

        `take` is called when the statement can begin. TaskNotFound is returned for a task that
        does not exist, or that its reference's owner does not own, and any other error of a single
        row: no task's row fails the reads of others.
        """
        async with self._connections.use() as connection:
            asked = take()
            if self._connections.sharded:
                return await self._read_sharded(connection, asked)
            ids: list[UUID | None] = []
            owners: list[str | None] = []
            names: list[str | None] = []
            for ref, _ in asked:
                owners.append(ref.owner)
                ids.append(ref.id if isinstance(ref, TaskId) else None)
                names.append(None if isinstance(ref, TaskId) else ref.name)
            rows = await connection.fetch(_STATES, *self._lease_terms, ids, owners, names)
            generation = connection.generation
        return [_found(one, row, generation) for one, row in zip(asked, rows, strict=True)]

    async def _read_sharded(
        self, connection: Connection, asked: Sequence[AskedState]
    ) -> Sequence[Found]:
        names = {(ref.owner, ref.name): None for ref, _ in asked if not isinstance(ref, TaskId)}
        named: dict[tuple[str, str], UUID] = {}
        if names:
            found = await connection.fetch(_NAMED, *map(list, zip(*names, strict=True)))
            named = {(row["owner"], row["name"]): row["task_id"] for row in found}
        ids = [
            ref.id if isinstance(ref, TaskId) else named.get((ref.owner, ref.name))
            for ref, _ in asked
        ]
        rows = await connection.fetch(_STATES_SHARDED, *self._lease_terms, ids)
        by_id = {row["task_id"]: row for row in rows}
        return [
            _found_sharded(one, None if id_ is None else by_id.get(id_), connection.generation)
            for one, id_ in zip(asked, ids, strict=True)
        ]


def _found_sharded(asked: AskedState, row: asyncpg.Record | None, generation: str) -> Found:
    owner = asked.ref.owner
    if row is None or (owner is not None and row["owner"] != owner):
        return TaskNotFound(str(asked.ref))
    return _found(asked, row, generation)


def _found(asked: AskedState, row: asyncpg.Record, generation: str) -> Found:
    ref, known = asked
    if known is not None and known.row == row and known.version.generation == generation:
        return known
    if row["epoch"] is None:  # its log's head goes with the deletion
        return TaskNotFound(str(ref))
    try:
        return state_of(row, generation, keep=True)
    except Exception as error:
        return error
