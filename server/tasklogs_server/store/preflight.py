"""Checks at the start whether a database is usable, to report a clear reason if it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import asyncpg
import structlog

from tasklogs_server.store.connect import Connection, close, connect
from tasklogs_server.store.errors import STORE_ERRORS, becomes_usable, in_words
from tasklogs_server.store.pooler import ConnectionsAreShared, TooFewConnections, check_pooling

_OLDEST_MAJOR = 15
_ENCODING = "UTF8"
# After a power failure this server and Postgres start together, and Postgres first replays its log.
# During a failover, the standby that becomes the primary may already answer.
_STARTING_SECONDS = 15.0
_ASK_AGAIN_SECONDS = 0.1

_FACTS = """
    SELECT pg_is_in_recovery() AS is_standby,
           current_setting('default_transaction_read_only')::boolean AS is_read_only,
           getdatabaseencoding()::text AS encoding,
           current_schema()::text AS schema"""

_SHARED = (
    "a pooler gives one connection to several clients in turn: set pool_mode = session in"
    " PgBouncer, or use the address of Postgres itself"
)

_log = structlog.get_logger(__name__)

_Open = Callable[[], Awaitable[Connection]]


class _Unusable(Exception):
    """The database answers, and cannot be used. The text says why."""


class _Standby(_Unusable):
    """It may be promoted soon."""


async def why_unusable(dsn: str) -> str | None:
    """Return one line that says why the database cannot be used; None: it can be used.

    Waits up to 15 s for a Postgres that is starting up, or is a standby. The line contains neither
    the password nor the URL.
    """
    # No settings, and no statements that stay prepared: a pooler may give them to others.
    open_one = partial(connect, dsn, {}, caches_statements=False)
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + _STARTING_SECONDS
    awaited = None
    while True:
        try:
            await _check(open_one)
        except (_Unusable, ValueError, *STORE_ERRORS) as error:
            reason = str(error) if isinstance(error, _Unusable) else in_words(error)
            may_change = isinstance(error, _Standby) or becomes_usable(error)
            if not may_change or loop.time() >= give_up_at:
                return reason
        else:
            return None
        if reason != awaited:
            awaited = reason
            _log.warning("store.awaited", reason=reason, seconds=_STARTING_SECONDS)
        await asyncio.sleep(_ASK_AGAIN_SECONDS)


async def _check(open_one: _Open) -> None:
    """Raise _Unusable, or what the driver raises."""
    connection = await open_one()
    try:
        major = connection.get_server_version().major
        if major < _OLDEST_MAJOR:
            raise _Unusable(f"it is Postgres {major}, {_OLDEST_MAJOR} is needed")
        # Before every question: its answer could be that to another question.
        await _check_pooling(connection, open_one)
        facts = await connection.fetchrow(_FACTS)
        assert facts is not None
        _check_facts(facts)
    finally:
        await close(connection)


async def _check_pooling(connection: Connection, open_one: _Open) -> None:
    try:
        await check_pooling(connection, open_one)
    except ConnectionsAreShared as error:
        raise _Unusable(_SHARED) from error
    except TooFewConnections as error:
        raise _Unusable(
            f"only {error.working} connections to it work at a time: raise pool_size in PgBouncer"
            " to TASKLOGS_READ_CONNECTIONS plus 9 or more"
        ) from error


def _check_facts(facts: asyncpg.Record) -> None:
    if facts["is_standby"]:
        raise _Standby("it is a standby: use the address of the primary")
    if facts["encoding"] != _ENCODING:
        raise _Unusable(
            f"its encoding is {facts['encoding']}, {_ENCODING} is needed:"
            f" CREATE DATABASE ... TEMPLATE template0 ENCODING '{_ENCODING}'"
        )
    if facts["is_read_only"]:
        raise _Unusable("it is read-only: default_transaction_read_only is on")
    if facts["schema"] is None:
        raise _Unusable(
            "its search_path has no schema that exists and that its user may use:"
            " ALTER ROLE ... SET search_path = public"
        )
