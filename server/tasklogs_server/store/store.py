"""The whole store of one server process."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from tasklogs_server.domain.errors import StoreUnavailable
from tasklogs_server.store.circuit_breaker import CircuitBreaker
from tasklogs_server.store.connect import SESSION_SETTINGS, connect
from tasklogs_server.store.connections import Connection, Connections
from tasklogs_server.store.errors import RETRY_AFTER
from tasklogs_server.store.evictions import Evictions
from tasklogs_server.store.generations import Generations, read_generation
from tasklogs_server.store.log_changes import LogChanges
from tasklogs_server.store.log_reads import LogReads
from tasklogs_server.store.log_writes import LogWrites
from tasklogs_server.store.monitor import Monitor, heartbeat, other_heartbeats, register
from tasklogs_server.store.purges import Purges
from tasklogs_server.store.retirements import Retirements
from tasklogs_server.store.sessions import SessionStore
from tasklogs_server.store.sharding import is_sharded
from tasklogs_server.store.task_rows import LeaseTerms
from tasklogs_server.store.task_states import TaskState, TaskStates
from tasklogs_server.store.task_transactions import TaskTransactions
from tasklogs_server.store.tasks import TaskStore

# For commits of held tasks, folds and confirmed times.
_ASIDE_CONNECTIONS = 2
# For purges and retirements. Neither waits for the other, or occupies a connection of readers. What
# a crash of Postgres undoes of their work is done again, so their commits do not wait for the disk.
_BUS_SETTINGS = SESSION_SETTINGS | {"synchronous_commit": "off"}
_CLEANUP_SETTINGS = {"synchronous_commit": "off"}
# How long a batch waits for a lock, and how long other work waits on the only connection for it.
_BATCH_LOCK_TIMEOUT = timedelta(milliseconds=10)
_SHARED_LOCK_TIMEOUT = timedelta(milliseconds=50)


class Store:
    """The parts of the store, over eight sets of connections.

    One is for commits, one for what must not delay them, one for large commits, one for uploads of
    large conversations, one for evictions, one for purges, one for retirements, one for the rest.
    """

    def __init__(
        self,
        dsn: str,
        connections: Connections,
        writes: Connections,
        writes_aside: Connections,
        large_writes: Connections,
        large_uploads: Connections,
        evictions: Connections,
        purging: Connections,
        retiring: Connections,
        circuit_breaker: CircuitBreaker,
        generations: Generations,
        lease_terms: LeaseTerms,
    ) -> None:
        self._dsn = dsn
        self._connections = connections
        self._write_connections = writes
        self._aside_connections = writes_aside
        self._large_write_connections = large_writes
        self._large_upload_connections = large_uploads
        self._eviction_connections = evictions
        self._purging_connections = purging
        self._retiring_connections = retiring
        self.circuit_breaker = circuit_breaker
        self.generations = generations
        self._lease_terms = lease_terms
        self._bus_connection: Connection | None = None
        generations.on_change(self._cut_bus)
        self.works = True
        """Whether the store worked when the monitor last checked."""
        transactions = TaskTransactions(connections)
        self.tasks = TaskStore(connections, transactions, lease_terms)
        self.reads = LogReads(connections, lease_terms)
        self.states = TaskStates(connections, lease_terms)
        self.changes = LogChanges(connections, lease_terms)
        self.sessions = SessionStore(connections, transactions, lease_terms)
        self.evictions = Evictions(evictions)
        self.purges = Purges(purging)
        self.retirements = Retirements(retiring, lease_terms)
        self.writes = LogWrites(
            writes, aside=writes_aside, large=large_writes, together=large_uploads
        )

    @classmethod
    async def open(
        cls,
        dsn: str,
        *,
        read_connections: int,
        lease: timedelta,
        acquire_timeout: timedelta | None = None,
    ) -> Store:
        """Register this process with the database. The schema must be up to date.

        `acquire_timeout`: how long a caller waits for one of the `read_connections`.
        """
        circuit_breaker, generations = CircuitBreaker(), Generations()
        pool = partial(Connections, dsn, circuit_breaker=circuit_breaker, generations=generations)
        connections = pool(size=read_connections, acquire_timeout=acquire_timeout)
        async with connections.use() as connection:
            sharded = await is_sharded(connection)
        if sharded:
            await connections.close()
            pool = partial(pool, sharded=True)
            connections = pool(size=read_connections, acquire_timeout=acquire_timeout)
        process_id = uuid.uuid4()
        up_since = await register(connections, process_id)
        # One for the current batch, and nothing else waits for it or takes it. One for large
        # commits of agent streams: they are written one at a time, and wait for no upload.
        writes, large_writes, writes_aside = (
            pool(size=size, lock_timeout=_BATCH_LOCK_TIMEOUT) for size in (1, 1, _ASIDE_CONNECTIONS)
        )
        # One, so that uploads of large conversations are written one at a time. One, so that
        # evictions run one at a time and occupy no connection of readers.
        large_uploads, evictions = (
            pool(size=1, lock_timeout=_SHARED_LOCK_TIMEOUT) for _ in range(2)
        )
        # One each: a purge goes on where its last chunk ended only on the same connection.
        purging, retiring = (
            pool(size=1, lock_timeout=_SHARED_LOCK_TIMEOUT, settings=_CLEANUP_SETTINGS)
            for _ in range(2)
        )
        lease_terms = LeaseTerms(process_id, up_since, lease)
        return cls(
            dsn,
            connections,
            writes,
            writes_aside,
            large_writes,
            large_uploads,
            evictions,
            purging,
            retiring,
            circuit_breaker,
            generations,
            lease_terms,
        )

    @property
    def connections(self) -> Mapping[str, Connections]:
        """The connections of reads and of commits, for metrics."""
        return {"reads": self._connections, "commits": self._write_connections}

    def is_current(self, state: TaskState) -> bool:
        """Whether Postgres is there, and has the history in which this state was found."""
        return (
            not self.circuit_breaker.is_away
            and state.version.generation == self.generations.current
        )

    async def watch(self, report: Callable[[bool], Awaitable[None]]) -> None:
        """Monitor the store until cancelled; `report` is called when it begins or ceases to work.

        This must run as long as the store is used. Without it nothing notices that Postgres is away
        or back, and this process has no heartbeat.
        """

        async def beat(connection: Connection) -> None:
            await heartbeat(connection, self._lease_terms.process_id, self._lease_terms.up_since)

        async def record_and_report(works: bool) -> None:
            self.works = works
            await report(works)

        await Monitor(
            self._dsn,
            self.circuit_breaker,
            beat,
            record_and_report,
            generations=self.generations,
        ).run()

    @property
    def process_id(self) -> UUID:
        """The id of this process in the rows of its sessions."""
        return self._lease_terms.process_id

    async def other_heartbeats(self) -> dict[UUID, datetime]:
        """Return the last heartbeats of the other processes that may live, by their ids.

        Raises StoreUnavailable.
        """
        return await other_heartbeats(self._connections, self.process_id)

    async def open_bus_connection(self) -> Connection:
        """Open a connection for notes, which the caller closes. It ends with its generation.

        Raises StoreUnavailable, and the driver's errors.
        """

        async def check(connection: Connection) -> None:
            self.generations.observe(await read_generation(connection))
            connection.generation = self.generations.current

        connection = await connect(self._dsn, _BUS_SETTINGS, check=check)
        if connection.generation != self.generations.current:
            connection.terminate()
            raise StoreUnavailable(RETRY_AFTER)
        self._bus_connection = connection
        return connection

    def _cut_bus(self) -> None:
        if self._bus_connection is not None:
            self._bus_connection.terminate()

    async def close(self) -> None:
        """Close all connections."""
        await self._retiring_connections.close()
        await self._purging_connections.close()
        await self._eviction_connections.close()
        await self._large_upload_connections.close()
        await self._large_write_connections.close()
        await self._aside_connections.close()
        await self._write_connections.close()
        await self._connections.close()
