"""The connections to Postgres: a free list, last in, first out.

asyncpg's own pool resets a connection after each use and wraps it in proxies. On the read path
asyncpg's pool served 0.77 times as many calls per second as this list (bench/ has the figures). No
code of the store leaves session state behind, so there is nothing to reset.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from types import MappingProxyType

import asyncpg

from tasklogs_server.concurrency.fair_turns import FairTurns
from tasklogs_server.concurrency.jitter import spread
from tasklogs_server.domain.errors import (
    LogCorrupt,
    StoreBusy,
    StoreUnavailable,
    TaskLogsError,
)
from tasklogs_server.store.circuit_breaker import CircuitBreaker
from tasklogs_server.store.connect import SESSION_SETTINGS, close, connect
from tasklogs_server.store.connect import Connection as Connection
from tasklogs_server.store.errors import (
    CORRUPT,
    RETRY_AFTER,
    STORE_ERRORS,
    UNAVAILABLE,
    is_connection_lost,
)
from tasklogs_server.store.generations import Generations, read_generation
from tasklogs_server.store.sharding import SHARDED_SETTINGS
from tasklogs_server.telemetry.calls import current_caller

_STILL_USABLE_AFTER = (asyncpg.PostgresError, TaskLogsError)
# For a statement to end that was cancelled, or a connection to open whose user has left.
_FINISH_SECONDS = 5.0


class Connections:
    """At most `size` connections, opened when needed. Further callers wait in line.

    They take turns by who made the current call. They wait at most `acquire_timeout`, and not at
    all while Postgres is away. `settings`: what these connections set in Postgres, in addition to
    the settings of all connections.
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
        sharded: bool = False,
    ) -> None:
        """`lock_timeout`: how long a statement waits for a lock of another transaction.

        `sharded`: Citus has distributed the tables.
        """
        self._dsn = dsn
        self.sharded = sharded
        self._settings = {**SESSION_SETTINGS, **settings}
        if sharded:
            self._settings |= SHARDED_SETTINGS
        if lock_timeout is not None:
            self._settings["lock_timeout"] = f"{lock_timeout / timedelta(milliseconds=1):.0f}ms"
        self._circuit_breaker = circuit_breaker or CircuitBreaker()
        self._circuit_breaker.on_loss(self._cut)
        self._generations = generations or Generations()
        self._generations.on_change(self._cut_former)
        self._acquire_timeout_seconds = (
            None if acquire_timeout is None else acquire_timeout.total_seconds()
        )
        self._turns = FairTurns(size)
        self._idle: deque[Connection] = deque()
        self._lent: dict[asyncio.Timeout, Connection | None] = {}
        """The connection of each user, by the user's time-out. None while it is being opened."""
        self._finishing: set[asyncio.Task[None]] = set()
        """Ends what a user has left unfinished, and keeps the user's connection until then."""
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
        if not self._turns.take_at_once():
            await self._wait_for_a_turn()
        unfinished: Awaitable[Connection] | None = None
        try:
            # Without a deadline: `_cut` sets one.
            async with asyncio.timeout(None) as limit:
                self._lent[limit] = connection = opening = None
                try:
                    connection = self._pop_idle()
                    if connection is None:
                        opening = self._start_opening()
                        await asyncio.wait([opening])
                        connection = opening.result()
                    self._lent[limit] = connection
                    if generation not in (None, connection.generation):
                        raise StoreUnavailable(RETRY_AFTER)
                    yield connection
                except BaseException as error:
                    if is_connection_lost(error):
                        self._circuit_breaker.suspect()
                    if opening is not None and limit.expired():
                        # `_cut` has ended the wait: Postgres is away. The connection may just have
                        # been opened, and `_cut` has not seen it.
                        opening.cancel()
                        opening.add_done_callback(_terminate_opened)
                    else:
                        unfinished = _unfinished(error, connection, opening)
                    if _was_cut(error, connection):
                        self._circuit_breaker.suspect()
                        raise StoreUnavailable(RETRY_AFTER) from error
                    raise
                finally:
                    del self._lent[limit]
                    if connection is not None and unfinished is None:
                        self._give_back(connection)
        except CORRUPT as error:
            raise LogCorrupt from error
        except UNAVAILABLE as error:
            raise StoreUnavailable(RETRY_AFTER) from error
        finally:
            if unfinished is None:
                self._turns.give_back()
            else:
                self._finish_later(unfinished)

    @property
    def in_use(self) -> int:
        """How many are lent or being opened."""
        return len(self._lent)

    @property
    def waiting(self) -> int:
        """How many callers wait in line."""
        return self._turns.waiting

    async def close(self) -> None:
        """Close the idle connections now, and the lent ones when they are returned."""
        self._closed = True
        idle = list(self._idle)
        self._idle.clear()
        await asyncio.sleep(0)  # one that has not begun would not end its connection
        for finishing in self._finishing:
            finishing.cancel()
        await asyncio.gather(*self._finishing, *map(close, idle), return_exceptions=True)

    async def _wait_for_a_turn(self) -> None:
        try:
            async with asyncio.timeout(self._acquire_timeout_seconds):
                await self._turns.take(current_caller())
        except TimeoutError:
            raise StoreBusy(spread(0.5, 2.0)) from None
        try:
            self._circuit_breaker.check()  # Postgres may have gone away meanwhile
        except StoreUnavailable:
            self._turns.give_back()
            raise

    def _start_opening(self) -> asyncio.Task[Connection]:
        opening = asyncio.create_task(self._open())
        # Its user may have left: then asyncio would report an error that nobody has asked for.
        opening.add_done_callback(lambda task: task.cancelled() or task.exception())
        return opening

    async def _open(self) -> Connection:
        try:
            connection = await connect(self._dsn, self._settings, check=self._check_generation)
        except asyncpg.PostgresError as error:
            # Whatever the reason, no statement has begun.
            self._circuit_breaker.suspect()
            raise StoreUnavailable(RETRY_AFTER) from error
        except StoreUnavailable:
            self._circuit_breaker.suspect()
            raise
        # Another host may have shown a newer one. Nothing may be awaited after this.
        if connection.generation != self._generations.current:
            connection.terminate()
            self._circuit_breaker.suspect()
            raise StoreUnavailable(RETRY_AFTER)
        return connection

    async def _check_generation(self, connection: Connection) -> None:
        """Raise StoreUnavailable for a standby or a former primary: another host may be right."""
        generation = await read_generation(connection)
        self._generations.observe(generation)
        connection.generation = self._generations.current

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

    def _finish_later(self, unfinished: Awaitable[Connection]) -> None:
        finishing = asyncio.create_task(self._finish(unfinished))
        self._finishing.add(finishing)
        finishing.add_done_callback(self._finishing.discard)

    async def _finish(self, unfinished: Awaitable[Connection]) -> None:
        """Keep a connection whose user has left. It is in use until it can be lent again.

        To end it and open another one costs more than most statements: callers who leave early
        would delay all others.
        """
        try:
            async with asyncio.timeout(_FINISH_SECONDS) as limit:
                self._lent[limit] = None
                try:
                    self._give_back(await unfinished)
                finally:
                    del self._lent[limit]
        except (*STORE_ERRORS, StoreUnavailable):
            pass  # the connection is closed, or could not be opened
        finally:
            self._turns.give_back()

    def _pop_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return None

    def _give_back(self, connection: Connection) -> None:
        if self._closed or connection.generation != self._generations.current:
            connection.terminate()
        elif not connection.is_closed():
            self._idle.append(connection)


def _was_cut(error: BaseException, connection: Connection | None) -> bool:
    """Whether asyncpg found no protocol: the connection was cut while it prepared a statement."""
    return isinstance(error, AttributeError) and connection is not None and connection.is_closed()


def _unfinished(
    error: BaseException, connection: Connection | None, opening: asyncio.Task[Connection] | None
) -> Awaitable[Connection] | None:
    """Return what has to end before a connection can be used after `error`, if anything.

    It is terminated if that is not known: an answer may still be on its way, which the next user
    must not read.
    """
    is_cancelled = isinstance(error, asyncio.CancelledError)
    if connection is None:
        return opening if is_cancelled else None
    if isinstance(error, _STILL_USABLE_AFTER):
        return None
    if is_cancelled and not connection.is_closed():
        return _statement_ended(connection)
    connection.terminate()
    return None


def _terminate_opened(opening: asyncio.Task[Connection]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().terminate()


async def _statement_ended(connection: Connection) -> Connection:
    try:
        # The driver has asked Postgres to end the statement. It waits for that first.
        await connection.execute("SELECT 1")
        # The statement may have begun a transaction, or have been the end of one.
        if connection.is_in_transaction():
            connection.terminate()
    except BaseException:
        connection.terminate()
        raise
    return connection
