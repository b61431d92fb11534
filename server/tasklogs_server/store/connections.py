"""The connections to Postgres: a free list, last in, first out.

asyncpg's own pool resets a connection after each use and wraps it in proxies. On the read path
asyncpg's pool served 0.77 times as many calls per second as this list (bench/ has the figures). No
code of the store leaves session state behind, so there is nothing to reset.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING

import asyncpg

from tasklogs_server.concurrency.jitter import spread
from tasklogs_server.concurrency.stall_free_timeout import stall_free_timeout
from tasklogs_server.domain.errors import (
    LogCorrupt,
    StoreBusy,
    StoreUnavailable,
    TaskLogsError,
)
from tasklogs_server.store.circuit_breaker import CircuitBreaker
from tasklogs_server.store.errors import (
    CORRUPT,
    RETRY_AFTER,
    UNAVAILABLE,
    is_connection_lost,
)
from tasklogs_server.store.generations import UNKNOWN, Generations, read_generation

if TYPE_CHECKING:
    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection

_CONNECT_TIMEOUT_SECONDS = 5.0
_STATEMENT_TIMEOUT_SECONDS = 30.0

_SESSION_SETTINGS = {
    "application_name": "tasklogs",
    # A transaction that stayed open kept an old snapshot: a commit then took 10.7 ms, not 1.1 ms.
    "idle_in_transaction_session_timeout": "30s",
    "statement_timeout": "30s",
    # A locked row of one task must not occupy the connections of all other tasks.
    "lock_timeout": "2s",
    # Every statement here is short: compiling it would cost more than it saves.
    "jit": "off",
    # Every statement is a look-up by key: one plan fits all arguments, and planning takes longer.
    "plan_cache_mode": "force_generic_plan",
}

_STILL_USABLE_AFTER = (asyncpg.PostgresError, TaskLogsError)


class Connection(_Connection):
    """A connection, and the generation of the store that it leads to."""

    generation = UNKNOWN


async def connect(dsn: str, **settings: str) -> Connection:
    """Open one connection with the settings of all connections, and `settings`."""
    async with stall_free_timeout(_CONNECT_TIMEOUT_SECONDS):
        return await asyncpg.connect(
            dsn,
            connection_class=Connection,
            command_timeout=_STATEMENT_TIMEOUT_SECONDS,
            server_settings=_SESSION_SETTINGS | settings,
        )


class Connections:
    """At most `size` connections, opened when needed. Further callers wait in line.

    They wait at most `acquire_timeout`, and not at all while Postgres is away. `settings`: what
    these connections set in Postgres, in addition to the settings of all connections.
    """

    def __init__(
        self,
        dsn: str,
        *,
        size: int,
        circuit_breaker: CircuitBreaker | None = None,
        generations: Generations | None = None,
        acquire_timeout: timedelta | None = None,
        lock_timeout: timedelta | None = None,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`lock_timeout`: how long a statement waits for a lock of another transaction."""
        self._dsn = dsn
        self._settings = dict(settings)
        if lock_timeout is not None:
            self._settings["lock_timeout"] = f"{lock_timeout / timedelta(milliseconds=1):.0f}ms"
        self._circuit_breaker = circuit_breaker or CircuitBreaker()
        self._circuit_breaker.on_loss(self._cut)
        self._generations = generations or Generations()
        self._generations.on_change(self._cut_former)
        self._acquire_timeout_seconds = (
            None if acquire_timeout is None else acquire_timeout.total_seconds()
        )
        self._waiting = 0
        self._slots = asyncio.Semaphore(size)
        self._idle: deque[Connection] = deque()
        self._lent: dict[asyncio.Timeout, Connection | None] = {}
        """The connection of each user, by the user's time-out. None while it is being opened."""
        self._closed = False

    @asynccontextmanager
    async def use(self, *, generation: str | None = None) -> AsyncIterator[Connection]:
        """Lend a connection for the block. Errors of the driver are raised as errors of the domain.

        `generation`: what the caller knows is of this one. Raises StoreUnavailable if the store has
        another one now.

        Raises StoreBusy if no connection is free in time. Raises StoreUnavailable at once while
        Postgres is away, and when it goes away during the block. A broken connection is not used
        again.
        """
        self._circuit_breaker.check()
        if self._slots.locked():
            await self._wait_for_a_turn()
        else:
            await self._slots.acquire()
        try:
            # Without a deadline: `_cut` sets one.
            async with asyncio.timeout(None) as limit:
                self._lent[limit] = connection = None
                try:
                    connection = self._pop_idle() or await self._open()
                    self._lent[limit] = connection
                    if generation not in (None, connection.generation):
                        raise StoreUnavailable(RETRY_AFTER)
                    yield connection
                except BaseException as error:
                    if is_connection_lost(error):
                        self._circuit_breaker.suspect()
                    # After an error of Postgres or the domain the connection is usable. After a
                    # cancellation or another failure an answer may still be on its way, which
                    # the next user must not read.
                    if connection is not None and not isinstance(error, _STILL_USABLE_AFTER):
                        connection.terminate()
                    raise
                finally:
                    del self._lent[limit]
                    if connection is not None:
                        self._give_back(connection)
        except CORRUPT as error:
            raise LogCorrupt from error
        except UNAVAILABLE as error:
            raise StoreUnavailable(RETRY_AFTER) from error
        finally:
            self._slots.release()

    @property
    def in_use(self) -> int:
        """How many are lent or being opened."""
        return len(self._lent)

    @property
    def waiting(self) -> int:
        """How many callers wait in line."""
        return self._waiting

    async def close(self) -> None:
        """Close the idle connections now, and the lent ones when they are returned."""
        self._closed = True
        idle = list(self._idle)
        self._idle.clear()
        await asyncio.gather(*map(_close, idle))

    async def _wait_for_a_turn(self) -> None:
        self._waiting += 1
        try:
            async with asyncio.timeout(self._acquire_timeout_seconds):
                await self._slots.acquire()
        except TimeoutError:
            raise StoreBusy(spread(0.5, 2.0)) from None
        finally:
            self._waiting -= 1
        try:
            self._circuit_breaker.check()  # Postgres may have gone away meanwhile
        except StoreUnavailable:
            self._slots.release()
            raise

    async def _open(self) -> Connection:
        connection = await connect(self._dsn, **self._settings)
        try:
            generation = await read_generation(connection)
            # Nothing may be awaited after this: the generation might change meanwhile.
            self._generations.observe(generation)
            connection.generation = self._generations.current
        except BaseException as error:
            connection.terminate()
            if isinstance(error, StoreUnavailable):
                self._circuit_breaker.suspect()
            raise
        return connection

    def _cut_former(self) -> None:
        """End the connections to a former generation: a former primary may still answer.

        A connection that is being opened stays. It is checked when it is open.
        """
        current = self._generations.current
        for limit, connection in list(self._lent.items()):
            if connection is not None and connection.generation != current:
                self._cut_one(limit, connection)
        while self._idle:
            self._idle.pop().terminate()

    def _cut(self) -> None:
        """End all waits for Postgres. The driver may not have noticed that a connection is dead."""
        for limit, connection in list(self._lent.items()):
            self._cut_one(limit, connection)
        while self._idle:
            self._idle.pop().terminate()

    def _cut_one(self, limit: asyncio.Timeout, connection: Connection | None) -> None:
        # A statement that waits for its response fails now, before the time-out cancels it.
        if connection is not None:
            connection.terminate()
        # This ends a wait to send a statement, or for a new connection. A user whose wait was ended
        # before may still be cleaning up.
        if not limit.expired():
            limit.reschedule(asyncio.get_running_loop().time())

    def _pop_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return None

    def _give_back(self, connection: Connection) -> None:
        if self._closed:
            connection.terminate()
        elif not connection.is_closed():
            self._idle.append(connection)


async def _close(connection: Connection) -> None:
    try:
        await connection.close(timeout=1)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()
