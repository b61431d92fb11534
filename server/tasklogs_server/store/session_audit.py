"""Which sessions of a process the rows of their tasks no longer name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from tasklogs_server.store.connections import Connection

if TYPE_CHECKING:
    import asyncpg

# One statement for all sessions of a process. It locks nothing, so a locked row delays nothing. It
# returns only the sessions that are not as their rows say: normally none. The LATERAL joins with
# OFFSET 0 are look-ups by key, whatever the planner thinks of the length of the arrays.
_AUDIT = """
    SELECT held.task_id, held.fence, task.task_id IS NULL OR head.fence IS NULL AS is_deleted,
           task.session_fence, task.start_build, task.agent_token_hash,
           coalesce(head.revision < held.revision, false) AS is_behind
      FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::int[])
           AS held (task_id, fence, revision, build_number)
      LEFT JOIN LATERAL (
        SELECT t.task_id, t.session_fence, t.start_build, t.agent_token_hash
          FROM tasks t WHERE t.task_id = held.task_id AND t.deleted_at IS NULL
        OFFSET 0
      ) task ON true
      LEFT JOIN LATERAL (
        SELECT h.fence, h.revision FROM log_heads h WHERE h.task_id = held.task_id
        OFFSET 0
      ) head ON true
     WHERE task.task_id IS NULL
        OR head.fence IS DISTINCT FROM held.fence
        OR head.revision < held.revision
        OR task.start_build > held.build_number"""

# All of these tasks that exist, whatever their rows say: with the join above Citus would have to
# fetch all tasks.
_AUDIT_SHARDED = """
    SELECT t.task_id, t.session_fence, t.start_build, t.agent_token_hash,
           h.fence AS head_fence, h.revision AS head_revision
      FROM tasks t LEFT JOIN log_heads h ON h.task_id = t.task_id
     WHERE t.task_id = ANY ($1::uuid[]) AND t.deleted_at IS NULL"""


@dataclass(frozen=True, slots=True)
class HeldSession:
    """A session as its process knows it. `build_number` None: it follows the latest build."""

    task_id: UUID
    fence: int
    revision: int
    build_number: int | None


@dataclass(frozen=True, slots=True)
class AuditedTask:
    """The task of a session that the rows do not name as it is.

    `session_fence` is the fence of the task's last session. If the task is deleted, nothing else is
    known.
    """

    task_id: UUID
    fence: int
    """The fence of the session that was looked up."""
    is_deleted: bool
    is_behind: bool
    """Whether the stored log lacks changes that the session committed."""
    session_fence: int | None
    start_build: int | None
    token_hash: bytes | None


async def audit(connection: Connection, held: Sequence[HeldSession]) -> Sequence[AuditedTask]:
    """Return the tasks of those sessions that ended elsewhere, or whose revision is not stored."""
    rows = await connection.fetch(
        _AUDIT,
        [one.task_id for one in held],
        [one.fence for one in held],
        [one.revision for one in held],
        [one.build_number for one in held],
    )
    return [
        AuditedTask(
            row["task_id"],
            row["fence"],
            row["is_deleted"],
            row["is_behind"],
            row["session_fence"],
            row["start_build"],
            row["agent_token_hash"],
        )
        for row in rows
    ]


async def audit_sharded(
    connection: Connection, held: Sequence[HeldSession]
) -> Sequence[AuditedTask]:
    """Do as `audit` does, where Citus has distributed the tables."""
    rows = await connection.fetch(_AUDIT_SHARDED, [one.task_id for one in held])
    by_id = {row["task_id"]: row for row in rows}
    audited = [_audited(one, by_id.get(one.task_id)) for one in held]
    return [one for one in audited if one is not None]


def _audited(held: HeldSession, row: asyncpg.Record | None) -> AuditedTask | None:
    """Compare as `_AUDIT` does. None: the session is as the rows say."""
    if row is None:
        return AuditedTask(held.task_id, held.fence, True, False, None, None, None)
    fence, revision, build = row["head_fence"], row["head_revision"], row["start_build"]
    is_behind = revision is not None and revision < held.revision
    has_newer_build = None not in (build, held.build_number) and build > held.build_number
    if fence == held.fence and not is_behind and not has_newer_build:
        return None
    return AuditedTask(
        held.task_id,
        held.fence,
        fence is None,
        is_behind,
        row["session_fence"],
        build,
        row["agent_token_hash"],
    )
