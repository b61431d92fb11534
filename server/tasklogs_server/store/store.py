"""All of the store together, for one server process."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

from tasklogs_server.store import processes
from tasklogs_server.store.circuit_breaker import Presence
from tasklogs_server.store.connections import Connection, Connections
from tasklogs_server.store.evictions import Evictions
from tasklogs_server.store.log_changes import LogChanges
from tasklogs_server.store.log_reads import LogReads
from tasklogs_server.store.log_writes import LogWrites
from tasklogs_server.store.monitor import Watch
from tasklogs_server.store.sessions import SessionStore
from tasklogs_server.store.task_rows import Standing
from tasklogs_server.store.tasks import TaskStore

# One batch at a time, and now and then a fold beside it; readers must not be in a commit's way.
_WRITE_CONNECTIONS = 2


class Store:
    """The store's parts, over three sets of connections: commits, evictions, and all the rest."""

    def __init__(
        self,
        dsn: str,
        connections: Connections,
        writes: Connections,
        evictions: Connections,
        presence: Presence,
        standing: Standing,
    ) -> None:
        self._dsn = dsn
        self._connections = connections
        self._write_connections = writes
        self._eviction_connections = evictions
        self.presence = presence
        self._standing = standing
        self.works = True
        """What its watch said last."""
        self.tasks = TaskStore(connections, standing)
        self.reads = LogReads(connections, standing)
        self.changes = LogChanges(connections, standing)
        self.sessions = SessionStore(connections, standing)
        self.evictions = Evictions(evictions)
        self.writes = LogWrites(writes)

    @classmethod
    async def open(
        cls, dsn: str, *, read_connections: int, lease: timedelta, patience: timedelta | None = None
    ) -> Store:
        """Register this process with the database, whose schema is up to date.

        `patience`: how long a caller waits for one of the `read_connections`.
        """
        presence = Presence()
        connections = Connections(dsn, size=read_connections, presence=presence, patience=patience)
        process_id = uuid.uuid4()
        up_since = await processes.register(connections, process_id)
        writes = Connections(dsn, size=_WRITE_CONNECTIONS, presence=presence)
        # One, so that evictions take turns and keep no reader waiting.
        evictions = Connections(dsn, size=1, presence=presence)
        standing = Standing(process_id, up_since, lease)
        return cls(dsn, connections, writes, evictions, presence, standing)

    @property
    def connections(self) -> Mapping[str, Connections]:
        """Both sets of connections, by what they are for."""
        return {"reads": self._connections, "commits": self._write_connections}

    async def watch(self, tell: Callable[[bool], Awaitable[None]]) -> None:
        """Look after the store until cancelled; `tell` hears whenever it can or cannot do its work.

        It must run for as long as the store is used: without it nobody notices that Postgres is
        away, nor that it is back, and this process has no heartbeat.
        """

        async def beat(connection: Connection) -> None:
            await processes.heartbeat(connection, self._standing.process_id)

        async def told(works: bool) -> None:
            self.works = works
            await tell(works)

        await Watch(self._dsn, self.presence, beat, told).run()

    async def close(self) -> None:
        """Close all connections."""
        await self._eviction_connections.close()
        await self._write_connections.close()
        await self._connections.close()
