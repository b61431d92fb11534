"""The heartbeat rows of server processes.

The clock is the database's, so that theirs need not agree.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from tasklogs_server.store.connections import Connection, Connections

# A process counts as gone 15 s after its last heartbeat. Where another still lives, there was no
# gap, and its up_since is ours too.
_REGISTER = """
    INSERT INTO processes (process_id, heartbeat_at, up_since)
    SELECT $1, clock_timestamp(), coalesce(
        (SELECT min(up_since) FROM processes
          WHERE heartbeat_at > clock_timestamp() - interval '15 s'),
        clock_timestamp())
    RETURNING up_since"""

_HEARTBEAT = "UPDATE processes SET heartbeat_at = clock_timestamp() WHERE process_id = $1"

# A row may go when no task needs it: where its process was killed it alone tells when the sessions
# were lost, and leases and the retention of paused tasks run from there.
_FORGET = """
    WITH forgotten AS (
        DELETE FROM processes
         WHERE process_id <> $1 AND heartbeat_at < clock_timestamp() - interval '1 day'
        RETURNING process_id, heartbeat_at
    )
    UPDATE tasks t SET session_lost_at = f.heartbeat_at
      FROM forgotten f
     WHERE t.session_process = f.process_id AND t.session_lost_at IS NULL"""


async def register(connections: Connections, process_id: UUID) -> datetime:
    """Add this process; return since when some server has been up without a gap."""
    async with connections.use() as connection:
        await connection.execute(_FORGET, process_id)
        up_since: datetime = await connection.fetchval(_REGISTER, process_id)
        return up_since


async def heartbeat(connection: Connection, process_id: UUID) -> None:
    """Say that this process lives. Every 5 s."""
    await connection.execute(_HEARTBEAT, process_id)
