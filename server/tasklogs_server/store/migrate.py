"""Brings a database's schema up to date."""

from __future__ import annotations

from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

# An arbitrary number. All servers of a database use the same one.
_LOCK_KEY = 0x7461736B_6C6F6773
_INSUFFICIENT_PRIVILEGE = "42501"


class UnknownSchema(Exception):
    """The schema was made by a newer version of the server."""


class SchemaRefused(Exception):
    """The user lacks the right to create the schema."""


async def migrate(dsn: str, to: str = "head") -> None:
    """Upgrade the database to the newest schema, if it has an older one.

    `to`: an older schema, for tests of migrations.

    Servers that start at the same time take turns. Raises UnknownSchema if a newer server has
    upgraded the database, SchemaRefused if the user lacks the right. Other errors are SQLAlchemy's
    or asyncpg's.
    """

    async def connect() -> asyncpg.Connection:
        return await asyncpg.connect(dsn)

    # Only asyncpg parses the DSN, so the server and its migrations reach the same database.
    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect)
    try:
        async with engine.connect() as connection:
            await connection.exec_driver_sql(f"SELECT pg_advisory_lock({_LOCK_KEY})")
            await connection.commit()
            await connection.run_sync(_upgrade, to)
            await connection.commit()
    finally:
        await engine.dispose()


def _upgrade(connection: Connection, to: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, to)
    except CommandError as error:
        raise UnknownSchema("its schema was made by a newer version of this server") from error
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _INSUFFICIENT_PRIVILEGE:
            raise
        raise SchemaRefused(
            "its user may not make tables there; make it the owner: ALTER DATABASE ... OWNER TO ..."
        ) from error
