"""Opens one connection to Postgres: which host, which settings, and how long it may take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from tasklogs_server.concurrency.first_success import first_success
from tasklogs_server.concurrency.stall_free_timeout import stall_free_timeout
from tasklogs_server.store.errors import NoHostUsable
from tasklogs_server.store.generations import UNKNOWN
from tasklogs_server.store.hosts import Host, says_which_host, several_hosts

if TYPE_CHECKING:
    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection

# For each host. It includes the settings and the caller's check.
_CONNECT_TIMEOUT_SECONDS = 5.0
_STATEMENT_TIMEOUT_SECONDS = 30.0
# A host that is down without a refusal costs each new connection this long. The monitor waits 2.2 s
# in all.
_HEAD_START = timedelta(milliseconds=250)

APPLICATION_NAME = "tasklogs"

SESSION_SETTINGS = {
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


class Connection(_Connection):
    """A connection, and the generation of the store that it leads to."""

    generation = UNKNOWN


Check = Callable[[Connection], Awaitable[None]]


async def _no_check(_: Connection) -> None:
    pass


async def connect(
    dsn: str,
    settings: Mapping[str, str] = SESSION_SETTINGS,
    *,
    check: Check = _no_check,
    caches_statements: bool = True,
    answer_seconds: float | None = _STATEMENT_TIMEOUT_SECONDS,
) -> Connection:
    """Open one connection with these settings. A host that `check` refuses is not used.

    `answer_seconds`: how long a statement may take; None: as long as it wants.

    If the URL names several hosts, each has 5 s of its own, and a host that is silent delays the
    next one by 0.25 s only. They are tried in their order, and a standby or a read-only server
    counts as refused, unless the URL has `target_session_attrs`. Raises NoHostUsable if there are
    several and none can be used, else the driver's error or that of `check`.
    """
    open_one = partial(
        _open,
        dsn,
        settings=settings,
        check=check,
        caches_statements=caches_statements,
        answer_seconds=answer_seconds,
    )
    hosts = several_hosts(dsn)
    if not hosts:
        return await open_one()
    wanted = None if says_which_host(dsn) else SessionAttribute.read_write
    try:
        return await first_success(
            [partial(open_one, host=host, wanted=wanted) for host in hosts],
            head_start=_HEAD_START,
            discard=asyncpg.Connection.terminate,
        )
    except ExceptionGroup as group:
        raise NoHostUsable(dict(zip(map(str, hosts), group.exceptions, strict=True))) from group


async def _open(
    dsn: str,
    *,
    settings: Mapping[str, str],
    check: Check,
    caches_statements: bool,
    answer_seconds: float | None,
    host: Host | None = None,
    wanted: SessionAttribute | None = None,
) -> Connection:
    async with stall_free_timeout(_CONNECT_TIMEOUT_SECONDS):
        connection = await asyncpg.connect(
            dsn,
            host=host and host.name,
            port=host and host.port,
            target_session_attrs=wanted,
            connection_class=Connection,
            command_timeout=answer_seconds,
            # A named statement would stay in a server that a pooler gives to others.
            statement_cache_size=100 if caches_statements else 0,
            # A list by a status is a statement of 16 KB, which would be planned each time.
            max_cacheable_statement_size=0,
            server_settings={"application_name": APPLICATION_NAME},
        )
        try:
            if settings:
                # Not as parameters of the start: PgBouncer refuses or ignores those.
                await connection.execute(_set(settings))
            await check(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection


async def close(connection: Connection) -> None:
    """Take leave of Postgres, and wait for that at most a second."""
    try:
        await connection.close(timeout=1)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()


def _set(settings: Mapping[str, str]) -> str:
    return "; ".join(f"SET {name} = '{value}'" for name, value in settings.items())
