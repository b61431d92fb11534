"""Brings a database's schema up to date."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import asyncpg

from tasklogs_server.store.connect import Connection, close, connect
from tasklogs_server.store.errors import SchemaRefused

# For each lock: that of the migrations, and those of tables that other transactions use.
_LOCK_SECONDS = 20
# A migration may take long. What it waits for may not.
_SETTINGS = {"statement_timeout": "0", "lock_timeout": f"{_LOCK_SECONDS} s"}

# The server reads and changes them all.
OUR_TABLES = (
    *("tasks", "task_names", "processes"),
    *("log_heads", "log_entries", "log_tail_parts", "log_events"),
)
_FORBIDDEN = """
    SELECT relname FROM pg_class
     WHERE relnamespace = current_schema()::regnamespace AND relname = ANY($1)
       AND NOT (has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')
                AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE'))
     LIMIT 1"""

_MIGRATIONS = Path(__file__).parent / "migrations"


def newest_schema() -> str:
    """Return the version of the schema that this server works with."""
    return max(path.name for path in _MIGRATIONS.glob("versions/[0-9]*.py"))[:4]


async def migrate(dsn: str, to: str = "head") -> None:
    """Upgrade the database to the newest schema, if it has an older one.

    `to`: an older schema, for tests of migrations.

    Servers that start at the same time take turns. Raises UnknownSchema if a newer server has
    upgraded the database, SchemaRefused if Postgres refuses, if the user lacks a right, or if
    another transaction holds a lock for 20 s. Errors while connecting are asyncpg's.
    """
    version, forbidden = await _look(dsn)
    if to != "head" or version != newest_schema():
        # It loads Alembic and SQLAlchemy: 0.4 s of CPU, which most starts can do without.
        from tasklogs_server.store.upgrade import upgrade

        await upgrade(dsn, to, _MIGRATIONS, _SETTINGS)
        _, forbidden = await _look(dsn)
    if forbidden is not None:
        raise SchemaRefused(
            f"its user may not read and change the table {forbidden};"
            f" make it the owner: ALTER TABLE {forbidden} OWNER TO ..."
        )


async def _look(dsn: str) -> tuple[str | None, str | None]:
    """Return the version of the schema, and a table that this user may not use."""
    # No statement stays in a server that a pooler gives to others.
    connection = await connect(dsn, _SETTINGS, caches_statements=False)
    try:
        return await _version(connection), await connection.fetchval(_FORBIDDEN, OUR_TABLES)
    finally:
        await close(connection)


async def _version(connection: Connection) -> str | None:
    # If this user may not read it, the migration says what is missing.
    with suppress(asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError):
        version: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
        return version
    return None
