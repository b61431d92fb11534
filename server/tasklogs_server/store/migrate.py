"""Brings a database's schema up to date."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from tasklogs_server.concurrency.background import background
from tasklogs_server.store.blockers import Blockers
from tasklogs_server.store.connect import connect
from tasklogs_server.store.errors import in_words

# An arbitrary number. All servers of a database use the same one.
LOCK_KEY = 0x7461736B_6C6F6773
# For each lock: that of the migrations, and those of tables that other transactions use.
_LOCK_SECONDS = 20
# A migration may take long. What it waits for may not.
_SETTINGS = {"statement_timeout": "0", "lock_timeout": f"{_LOCK_SECONDS}s"}

# The server reads and changes them all.
OUR_TABLES = (
    *("tasks", "task_names", "processes"),
    *("log_heads", "log_entries", "log_tail_parts", "log_events"),
)
_FORBIDDEN = text("""
    SELECT relname FROM pg_class
     WHERE relnamespace = current_schema()::regnamespace AND relname = ANY(:tables)
       AND NOT (has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')
                AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE'))
     LIMIT 1""")


class UnknownSchema(Exception):
    """The schema was made by a newer version of the server."""


class SchemaRefused(Exception):
    """The schema cannot be brought up to date. One line that says why."""


async def migrate(dsn: str, to: str = "head") -> None:
    """Upgrade the database to the newest schema, if it has an older one.

    `to`: an older schema, for tests of migrations.

    Servers that start at the same time take turns. Raises UnknownSchema if a newer server has
    upgraded the database, SchemaRefused if Postgres refuses, if the user lacks a right, or if
    another transaction holds a lock for 20 s. Errors while connecting are asyncpg's.
    """
    # Only asyncpg parses the DSN, so the server and its migrations reach the same database.
    open_one = partial(connect, dsn, _SETTINGS, answer_seconds=None)
    engine = create_async_engine("postgresql+asyncpg://", async_creator=open_one)
    blockers = Blockers(dsn)
    try:
        async with engine.connect() as connection:
            session = await connection.scalar(text("SELECT pg_backend_pid()"))
            async with background(blockers.watch(session)):
                await _upgrade_locked(connection, to)
    except CommandError as error:
        raise UnknownSchema("its schema was made by a newer version of this server") from error
    except DBAPIError as error:
        raise SchemaRefused(_why_refused(error, blockers)) from error
    finally:
        await engine.dispose()


async def _upgrade_locked(connection: AsyncConnection, to: str) -> None:
    # It ends with the transaction: a lock of the session would stay in the session of a pooler.
    await connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK_KEY})"))
    await connection.run_sync(_upgrade, to)
    forbidden = await connection.scalar(_FORBIDDEN, {"tables": list(OUR_TABLES)})
    await connection.commit()
    if forbidden is not None:
        raise SchemaRefused(
            f"its user may not read and change the table {forbidden};"
            f" make it the owner: ALTER TABLE {forbidden} OWNER TO ..."
        )


def _upgrade(connection: Connection, to: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def _why_refused(error: DBAPIError, blockers: Blockers) -> str:
    cause = error.orig and error.orig.__cause__
    match cause:
        case asyncpg.InsufficientPrivilegeError():
            return (
                "its user may not make tables there;"
                " make it the owner: ALTER DATABASE ... OWNER TO ..."
            )
        case asyncpg.LockNotAvailableError():
            return f"waited {_LOCK_SECONDS} s for a lock that is held by {blockers.last}"
        case _:
            return in_words(cause or error)
