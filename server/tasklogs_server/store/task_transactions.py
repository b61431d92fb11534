"""Transactions that lock rows of one task. While another transaction holds them, others go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import TypeVar
from weakref import WeakValueDictionary

import asyncpg

from tasklogs_server.concurrency.jitter import spread
from tasklogs_server.domain.errors import TaskLogsError
from tasklogs_server.store.connections import Connection, Connections
from tasklogs_server.store.errors import is_row_held, row_held

T = TypeVar("T")

HELD_WAIT = timedelta(seconds=2)
"""How long a caller waits for a row that another transaction holds."""

# A caller that waits for a lock in Postgres occupies a connection that reads need.
_BEGIN = "BEGIN; SET LOCAL lock_timeout = '50ms'"
_TURN_SECONDS = 0.05
_FIRST_PAUSE_SECONDS = 0.01
_LONGEST_PAUSE_SECONDS = 0.2


async def retry_while_held(work: Callable[[], Awaitable[T]], *, wait: timedelta = HELD_WAIT) -> T:
    """Return what `work` returns. Try again while another transaction holds the row, up to `wait`.

    `wait` runs from the first attempt that found the row held: `work` may stand in line before. In
    the pauses `work` occupies nothing. Raises what `work` raises; after `wait` StoreUnavailable.
    """
    loop = asyncio.get_running_loop()
    deadline: float | None = None
    pause_seconds = _FIRST_PAUSE_SECONDS
    while True:
        try:
            return await work()
        except Exception as error:
            if not is_row_held(error):
                raise
            deadline = deadline or loop.time() + wait.total_seconds()
            if loop.time() >= deadline:
                raise
        await asyncio.sleep(spread(pause_seconds / 2, pause_seconds).total_seconds())
        pause_seconds = min(pause_seconds * 2, _LONGEST_PAUSE_SECONDS)


class TaskTransactions:
    """Runs transactions that lock rows of one task, on connections that reads use too.

    At most one connection waits for the rows of one task, for a twentieth of a second. So any
    number of callers of a task whose rows are held leaves the connections to others.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._turns: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()
        """One lock for each key that a caller works on. Callers keep it alive."""

    async def run(self, key: Hashable, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run `work` in a transaction and return its result. `key`: the task, or what is locked.

        `work` may run several times. If the rows stay held for 2 s, raises StoreUnavailable.
        """
        return await retry_while_held(lambda: self.attempt(key, work))

    async def attempt(self, key: Hashable, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do as `run` does, once. If the rows are held, raises an error for `is_row_held`."""
        turn = self._turns.setdefault(key, asyncio.Lock())
        async with (
            _have(turn),
            self._connections.use() as connection,
            _transaction(connection),
        ):
            return await work(connection)


@asynccontextmanager
async def _have(turn: asyncio.Lock) -> AsyncIterator[None]:
    has_turn = False
    with suppress(TimeoutError):
        async with asyncio.timeout(_TURN_SECONDS):
            await turn.acquire()
            has_turn = True
    if not has_turn:
        raise row_held()
    try:
        yield
    finally:
        turn.release()


@asynccontextmanager
async def _transaction(connection: Connection) -> AsyncIterator[None]:
    # One message begins the transaction and sets its time-out. asyncpg's own transaction would
    # need a second one.
    await connection.execute(_BEGIN)
    try:
        yield
    except (asyncpg.PostgresError, TaskLogsError):
        await connection.execute("ROLLBACK")
        raise
    # After any other error the connection is not used again.
    await connection.execute("COMMIT")
