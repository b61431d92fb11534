"""Runs the migrations with Alembic. Importing it takes 0.4 s of CPU, so only `migrate` does."""

from __future__ import annotations

from collections.abc import Mapping
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
from tasklogs_server.store.errors import SchemaRefused, UnknownSchema, in_words

# An arbitrary number. All servers of a database use the same one.
LOCK_KEY = 0x7461736B_6C6F6773


async def upgrade(dsn: str, to: str, scripts: Path, settings: Mapping[str, str]) -> None:
    """Run the migrations in `scripts` up to `to`, one server at a time. Raises as `migrate`."""
    # Only asyncpg parses the DSN, so the server and its migrations reach the same database.
    open_one = partial(connect, dsn, settings, answer_seconds=None)
    engine = create_async_engine("postgresql+asyncpg://", async_creator=open_one)
    blockers = Blockers(dsn)
    try:
        async with engine.connect() as connection:
            session = await connection.scalar(text("SELECT pg_backend_pid()"))
            async with background(blockers.watch(session)):
                await _upgrade_locked(connection, to, scripts)
    except CommandError as error:
        raise UnknownSchema("its schema was made by a newer version of this server") from error
    except DBAPIError as error:
        raise SchemaRefused(_why_refused(error, blockers, settings["lock_timeout"])) from error
    finally:
        await engine.dispose()


async def _upgrade_locked(connection: AsyncConnection, to: str, scripts: Path) -> None:
    # It ends with the transaction: a lock of the session would stay in the session of a pooler.
    await connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK_KEY})"))
    await connection.run_sync(_upgrade, to, scripts)
    await connection.commit()


def _upgrade(connection: Connection, to: str, scripts: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(scripts))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def _why_refused(error: DBAPIError, blockers: Blockers, lock_timeout: str) -> str:
    cause = error.orig and error.orig.__cause__
    match cause:
        case asyncpg.InsufficientPrivilegeError():
            return (
                "its user may not make tables there;"
                " make it the owner: ALTER DATABASE ... OWNER TO ..."
            )
        case asyncpg.LockNotAvailableError():
            return f"waited {lock_timeout} for a lock that is held by {blockers.last}"
        case _:
            return in_words(cause or error)
