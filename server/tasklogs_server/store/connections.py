"""The connections to Postgres: a free list, last in first out.

asyncpg's own pool resets a connection after each use and goes through proxies; on the hot read
path it reached 0.77 of the calls per second of this list (bench/ has the figures). Nothing here
leaves session state behind, so there is nothing to reset.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import asyncpg

from tasklogs_server.concurrency.jitter import spread
from tasklogs_server.domain.errors import StoreBusy, TaskLogsError
from tasklogs_server.store.circuit_breaker import Presence
from tasklogs_server.store.errors import is_connection_lost, translated

if TYPE_CHECKING:
    from typing import TypeAlias

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

_CONNECT_TIMEOUT_SECONDS = 5.0
_STATEMENT_TIMEOUT_SECONDS = 30.0

_SESSION_SETTINGS = {
    "application_name": "tasklogs",
    # One old snapshot held open turned a commit of 1.1 ms into 10.7 ms: no transaction of ours may
    # linger.
    "idle_in_transaction_session_timeout": "30s",
    "statement_timeout": "30s",
    # A row of one task that somebody holds must not hold the connections of all the others.
    "lock_timeout": "2s",
    # Every statement here is short: compiling it would cost more than it saves.
    "jit": "off",
    # And a look-up by key: one plan fits all arguments, and planning takes longer than running.
    "plan_cache_mode": "force_generic_plan",
}

_IN_ORDER = (asyncpg.PostgresError, TaskLogsError)


async def connect(dsn: str, **settings: str) -> Connection:
    """Open one connection with the settings that all of ours have, and those that are given."""
    return await asyncpg.connect(
        dsn,
        timeout=_CONNECT_TIMEOUT_SECONDS,
        command_timeout=_STATEMENT_TIMEOUT_SECONDS,
        server_settings=_SESSION_SETTINGS | settings,
    )


class Connections:
    """At most `size` connections, opened when needed; callers beyond that wait their turn.

    Not longer than `patience`, and not at all while Postgres is away.
    """

    def __init__(
        self,
        dsn: str,
        *,
        size: int,
        presence: Presence | None = None,
        patience: timedelta | None = None,
    ) -> None:
        self._dsn = dsn
        self._presence = presence or Presence()
        self._presence.on_loss(self._cut)
        self._patience_seconds = None if patience is None else patience.total_seconds()
        self._waiting = 0
        self._slots = asyncio.Semaphore(size)
        self._idle: deque[Connection] = deque()
        self._lent: dict[asyncio.Timeout, Connection | None] = {}
        """Who has one, or is opening one."""
        self._closed = False

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Connection]:
        """Lend a connection. Raises the domain's errors; a connection that broke is not kept.

        Raises StoreBusy where the turn did not come in time, StoreUnavailable at once where
        Postgres is away, or goes away meanwhile.
        """
        self._presence.check()
        await self._wait_for_a_turn()
        try:
            self._presence.check()  # it may have gone while this one waited
            with translated():
                # Without a deadline: `_cut` sets one.
                async with asyncio.timeout(None) as limit:
                    self._lent[limit] = connection = None
                    try:
                        connection = self._take_idle() or await connect(self._dsn)
                        self._lent[limit] = connection
                        yield connection
                    except BaseException as error:
                        if is_connection_lost(error):
                            self._presence.suspect()
                        # Where Postgres refused a statement, or a row said no, the connection is in
                        # order. Cancelled or failed in the middle: the next user must not read this
                        # one's answer.
                        if connection is not None and not isinstance(error, _IN_ORDER):
                            connection.terminate()
                        raise
                    finally:
                        del self._lent[limit]
                        if connection is not None:
                            self._give_back(connection)
        finally:
            self._slots.release()

    @property
    def in_use(self) -> int:
        """How many are lent, or are being opened."""
        return len(self._lent)

    @property
    def waiting(self) -> int:
        """How many callers wait for their turn."""
        return self._waiting

    async def close(self) -> None:
        """Close what is idle now, and what is lent when it comes back."""
        self._closed = True
        idle = list(self._idle)
        self._idle.clear()
        await asyncio.gather(*map(_close, idle))

    async def _wait_for_a_turn(self) -> None:
        if not self._slots.locked():
            await self._slots.acquire()
            return
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience_seconds):
                await self._slots.acquire()
        except TimeoutError:
            raise StoreBusy(spread(0.5, 2.0)) from None
        finally:
            self._waiting -= 1

    def _cut(self) -> None:
        """Let all who wait for Postgres fail; the connections may be dead and not know it."""
        now = asyncio.get_running_loop().time()
        for limit, connection in list(self._lent.items()):
            # A statement that waits for its answer fails by this, before the deadline cancels it
            # ...
            if connection is not None:
                connection.terminate()
            # ... and one that still waits to be written, or for a connection, by that. Whoever was
            # cut before may not have left yet.
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


async def _close(connection: Connection) -> None:
    try:
        await connection.close(timeout=1)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()
