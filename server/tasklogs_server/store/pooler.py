"""Finds out whether a pooler, such as PgBouncer, gives a connection to several clients in turn.

In PgBouncer's pool modes `transaction` and `statement`, two statements of one connection may run in
different sessions of Postgres. Prepared statements, settings and locks are part of a session. Then
the server reads answers to other questions, without an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg

from tasklogs_server.store.connect import Connection, close

# A pooler behind one address may be several processes, each with its own sessions.
_CLIENTS_OF_A_POOLER = 8
_CLIENTS = 2
_ROUNDS = 4
# More than once in a row: a pooler may hand out its sessions in turn.
_ASK_TIMES = 2
_ASK_SECONDS = 5.0

_SESSION = "SELECT pg_backend_pid()"


class ConnectionsAreShared(Exception):
    """A connection does not keep its session."""


class TooFewConnections(Exception):
    """A further connection gets no session while others have theirs."""

    def __init__(self, working: int) -> None:
        super().__init__(f"only {working} connections work at the same time")
        self.working = working
        """How many connections had a session."""


async def check_pooling(
    first: Connection, open_another: Callable[[], Awaitable[Connection]]
) -> None:
    """Raise ConnectionsAreShared or TooFewConnections if a pooler makes Postgres unusable.

    `first` is open and remains so. Connections from `open_another` are closed here. Both kinds must
    not cache statements, because those would stay in the sessions of others.
    """
    clients = [first]
    sessions: dict[int, Connection] = {}
    try:
        await _note_session(first, sessions)
        # Postgres tells a client the number of its session; a pooler tells a number of its own.
        is_direct = first.get_server_pid() in sessions
        while len(clients) < (_CLIENTS if is_direct else _CLIENTS_OF_A_POOLER):
            clients.append(await open_another())
            try:
                await _note_session(clients[-1], sessions)
            except TimeoutError as error:
                raise TooFewConnections(len(clients) - 1) from error
        for _ in range(_ROUNDS):
            for client in clients:
                for _ in range(_ASK_TIMES):
                    await _note_session(client, sessions)
    finally:
        await asyncio.gather(*map(close, clients[1:]))


async def _note_session(client: Connection, sessions: dict[int, Connection]) -> None:
    """Raise ConnectionsAreShared if this client's session changed, or is another client's."""
    try:
        # A prepared statement needs the same session twice: a transaction keeps it.
        async with asyncio.timeout(_ASK_SECONDS), client.transaction():
            session: int = await client.fetchval(_SESSION)
    except asyncpg.PostgresError as error:
        if "statement pooling mode" in str(error):
            raise ConnectionsAreShared from error
        raise
    if sessions.setdefault(session, client) is not client:
        raise ConnectionsAreShared
    if sum(owner is client for owner in sessions.values()) > 1:
        raise ConnectionsAreShared
