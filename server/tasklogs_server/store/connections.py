"""The connections to Postgres: a free list, last in, first out.

asyncpg's own pool resets a connection after each use and wraps it in proxies. On the hot read path
it reached 0.77 of the calls per second of this list (bench/ has the figures). No code of the store
leaves session state behind, so there is nothing to reset.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import asyncpg
import structlog

from tasklogs_server.concurrency.jitter import spread
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
    concerns_one_task,
    is_connection_lost,
)

if TYPE_CHECKING:
    from typing import TypeAlias

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

_CONNECT_TIMEOUT_SECONDS = 5.0
_STATEMENT_TIMEOUT_SECONDS = 30.0

_SESSION_SETTINGS = {
    "application_name": "tasklogs",
    # One old snapshot that stayed open turned a commit of 1.1 ms into 10.7 ms.
    "idle_in_transaction_session_timeout": "30s",
    "statement_timeout": "30s",
    # A locked row of one task must not occupy the connections of all other tasks.
    "lock_timeout": "2s",
    # Every statement here is short: compiling it would cost more than it saves.
    "jit": "off",
    # Every statement is a look-up by key: one plan fits all arguments, and planning takes longer.
    "plan_cache_mode": "force_generic_plan",
}

_log = structlog.get_logger(__name__)

_STILL_USABLE_AFTER = (asyncpg.PostgresError, TaskLogsError)


async def connect(dsn: str, **settings: str) -> Connection:
    """Open one connection with the settings of all connections, and `settings`."""
    return await asyncpg.connect(
        dsn,
        timeout=_CONNECT_TIMEOUT_SECONDS,
        command_timeout=_STATEMENT_TIMEOUT_SECONDS,
        server_settings=_SESSION_SETTINGS | settings,
    )


class Connections:
    """At most `size` connections, opened when needed. Further callers wait in line.

    They wait at most `patience`, and not at all while Postgres is away.
    """

    def __init__(
        self,
        dsn: str,
        *,
        size: int,
        circuit_breaker: CircuitBreaker | None = None,
        patience: timedelta | None = None,
    ) -> None:
        self._dsn = dsn
        self._circuit_breaker = circuit_breaker or CircuitBreaker()
        self._circuit_breaker.on_loss(self._cut)
        self._patience_seconds = None if patience is None else patience.total_seconds()
        self._waiting = 0
        self._slots = asyncio.Semaphore(size)
        self._idle: deque[Connection] = deque()
        self._lent: dict[asyncio.Timeout, Connection | None] = {}
        """By the time-out of each user: its connection; None: it is being opened."""
        self._closed = False

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Connection]:
        """Lend a connection within the block, where the driver's errors become the domain's.

        Raises StoreBusy if there was none in time, StoreUnavailable at once if Postgres is away or
        goes away meanwhile. A connection that broke is not used again.
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
                    connection = self._take_idle() or await connect(self._dsn)
                    self._lent[limit] = connection
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
            async with asyncio.timeout(self._patience_seconds):
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

    def _cut(self) -> None:
        """End all waits for Postgres; a dead connection may not have been noticed."""
        now = asyncio.get_running_loop().time()
        for limit, connection in list(self._lent.items()):
            # This fails a statement that waits for its answer, before the time-out cancels it.
            if connection is not None:
                connection.terminate()
            # This ends a wait to write a statement, or for a new connection. A user that was cut
            # before may still be there.
            if not limit.expired():
                limit.reschedule(now)
        while self._idle:
            self._idle.pop().terminate()

    def _take_idle(self) -> Connection | None:
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


async def each_or_alone(
    connections: Connections, statement: str, arguments: Sequence[tuple[object, ...]]
) -> None:
    """Run `statement` with each of `arguments`, whose first is the task, in one transaction.

    If the row of one task is refused or cannot be read, each runs alone, and failures are logged.
    Raises StoreUnavailable.
    """
    try:
        async with connections.use() as connection:
            await connection.executemany(statement, arguments)
        return
    except Exception as error:
        if not concerns_one_task(error):
            raise
    for one in arguments:
        try:
            async with connections.use() as connection:
                await connection.execute(statement, *one)
        except Exception as error:
            if not concerns_one_task(error):
                raise
            _log.error("store.row_refused", task=str(one[0]), error=type(error).__name__)


async def _close(connection: Connection) -> None:
    try:
        await connection.close(timeout=1)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()
