"""Rows of processes that have been dead for a day are deleted.

Before that, the last heartbeat of a process is copied to its sessions. If the process was killed,
leases and the retention of paused tasks are counted from that time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

    from tasklogs_server.store.connections import Connection

_DEAD = """
    SELECT process_id, heartbeat_at FROM processes
     WHERE process_id <> $1 AND heartbeat_at < clock_timestamp() - interval '1 day'"""

_HELD_BY = """
    SELECT task_id, session_process FROM tasks
     WHERE session_process = ANY ($1::uuid[]) AND session_lost_at IS NULL ORDER BY task_id"""

# SKIP LOCKED: a task whose row is held does not prevent the start.
_LOSE_TO_THE_DEAD = """
    WITH unlocked AS MATERIALIZED (
        SELECT task_id FROM tasks
         WHERE task_id = $1 AND session_process = $2 AND session_lost_at IS NULL
           FOR UPDATE SKIP LOCKED
    ), lost AS (
        UPDATE tasks t SET session_lost_at = $3::timestamptz
          FROM unlocked WHERE t.task_id = $1 AND t.task_id = unlocked.task_id
        RETURNING t.task_id
    )
    SELECT task_id FROM unlocked"""

# The heartbeat is compared: two starts at once do no harm, nor does a process that was frozen for a
# day and goes on.
_FORGET = """
    DELETE FROM processes
     WHERE process_id = ANY ($1::uuid[]) AND heartbeat_at < now() - interval '1 day'"""


async def forget_dead(connection: Connection, process_id: UUID) -> None:
    """Delete the rows of dead processes; `process_id` is this one.

    The row of a process stays, until a later start, while a task that it held is locked.
    """
    found = await connection.fetch(_DEAD, process_id)
    dead = {row["process_id"]: row["heartbeat_at"] for row in found}
    if not dead:
        return
    held = await connection.fetch(_HELD_BY, list(dead))
    if held:
        losses = [(task_id, process, dead[process]) for task_id, process in held]
        await connection.fetchmany(_LOSE_TO_THE_DEAD, losses)
        for row in await connection.fetch(_HELD_BY, list(dead)):
            dead.pop(row["session_process"], None)
    await connection.execute(_FORGET, list(dead))
