"""Checks at the start whether a database is usable, to report a clear reason if it is not."""

from __future__ import annotations

import asyncio

import asyncpg

from tasklogs_server.store.connections import Connection, connect

_OLDEST_MAJOR = 15
# After a power failure this server and Postgres start together, and Postgres first replays its log.
# During a failover, the standby that becomes the primary may already answer.
_STARTING_SECONDS = 15.0
_ASK_AGAIN_SECONDS = 0.1

_IS_STANDBY = "SELECT pg_is_in_recovery()"


async def why_unusable(dsn: str) -> str | None:
    """Return one line that says why the database cannot be used; None: it can be used.

    Waits up to 15 s for a Postgres that is starting up, or is a standby. The line contains neither
    the password nor the URL.
    """
    try:
        connection = await _connect_once_started(dsn)
    except asyncpg.PostgresError as error:
        return (error.message or type(error).__name__).splitlines()[0]
    except TimeoutError:
        return "it does not answer"
    except FileNotFoundError:
        return "its socket is not there, or a file of its URL (sslrootcert, sslcert, sslkey)"
    except OSError as error:
        return error.strerror or str(error)
    except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        return str(error).splitlines()[0]
    except ValueError:
        # Its text quotes the URL.
        return "its URL cannot be parsed; it looks like postgresql://USER:PASSWORD@HOST:PORT/NAME"
    try:
        major = connection.get_server_version().major
        is_standby = await connection.fetchval(_IS_STANDBY)
    finally:
        await connection.close()
    if major < _OLDEST_MAJOR:
        return f"it is Postgres {major}, {_OLDEST_MAJOR} is needed"
    return "it is a standby: use the address of the primary" if is_standby else None


async def _connect_once_started(dsn: str) -> Connection:
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + _STARTING_SECONDS
    while True:
        try:
            connection = await connect(dsn)
            try:
                is_standby = await connection.fetchval(_IS_STANDBY)
            except BaseException:
                connection.terminate()
                raise
            if not is_standby or loop.time() >= give_up_at:
                return connection
            await connection.close()
        except asyncpg.CannotConnectNowError:
            if loop.time() >= give_up_at:
                raise
        await asyncio.sleep(_ASK_AGAIN_SECONDS)
