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
from typing import TYPE_CHECKING

import asyncpg

from tasklogs_server.domain.errors import TaskLogsError
from tasklogs_server.store.failures import translated

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
    # Every statement here is short: compiling it would cost more than it saves.
    "jit": "off",
    # And a look-up by key: one plan fits all arguments, and planning takes longer than running.
    "plan_cache_mode": "force_generic_plan",
}


async def connect(dsn: str) -> Connection:
    """Open one connection with the settings that all of ours have."""
    return await asyncpg.connect(
        dsn,
        timeout=_CONNECT_TIMEOUT_SECONDS,
        command_timeout=_STATEMENT_TIMEOUT_SECONDS,
        server_settings=_SESSION_SETTINGS,
    )


class Connections:
    """At most `size` connections, opened when needed; callers beyond that wait their turn."""

    def __init__(self, dsn: str, *, size: int) -> None:
        self._dsn = dsn
        self._slots = asyncio.Semaphore(size)
        self._idle: deque[Connection] = deque()
        self._closed = False

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Connection]:
        """Lend a connection. Raises the domain's errors; a connection that broke is not kept."""
        with translated():
            async with self._slots:
                connection = self._take_idle() or await connect(self._dsn)
                try:
                    yield connection
                except (asyncpg.PostgresError, TaskLogsError):
                    # Postgres refused a statement, or a row said no: the connection is in order.
                    raise
                except BaseException:
                    # Cancelled or failed in the middle: the next user must not read this one's
                    # answer.
                    connection.terminate()
                    raise
                finally:
                    self._give_back(connection)

    async def close(self) -> None:
        """Close what is idle now, and what is lent when it comes back."""
        self._closed = True
        while self._idle:
            connection = self._idle.pop()
            try:
                await connection.close(timeout=1)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection.terminate()

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
