"""All of the store together, for one server process."""

from __future__ import annotations

import uuid
from datetime import timedelta

from tasklogs_server.store import processes
from tasklogs_server.store.connections import Connections
from tasklogs_server.store.log_changes import LogChanges
from tasklogs_server.store.log_reads import LogReads
from tasklogs_server.store.log_writes import LogWrites
from tasklogs_server.store.sessions import SessionStore
from tasklogs_server.store.task_rows import Standing
from tasklogs_server.store.tasks import TaskStore

# One batch at a time, and now and then a fold beside it; readers must not be in a commit's way.
_WRITE_CONNECTIONS = 2


class Store:
    """The store's parts, over two sets of connections: commits, and all the rest."""

    def __init__(self, connections: Connections, writes: Connections, standing: Standing) -> None:
        self._connections = connections
        self._write_connections = writes
        self._standing = standing
        self.tasks = TaskStore(connections, standing)
        self.reads = LogReads(connections, standing)
        self.changes = LogChanges(connections, standing)
        self.sessions = SessionStore(connections, standing)
        self.writes = LogWrites(writes)

    @classmethod
    async def open(cls, dsn: str, *, read_connections: int, lease: timedelta) -> Store:
        """Register this process with the database, whose schema is up to date."""
        connections = Connections(dsn, size=read_connections)
        process_id = uuid.uuid4()
        up_since = await processes.register(connections, process_id)
        writes = Connections(dsn, size=_WRITE_CONNECTIONS)
        return cls(connections, writes, Standing(process_id, up_since, lease))

    async def heartbeat(self) -> None:
        """Say that this process lives, every 5 s. Raises StoreUnavailable."""
        await processes.heartbeat(self._connections, self._standing.process_id)

    async def close(self) -> None:
        """Close all connections."""
        await self._write_connections.close()
        await self._connections.close()
