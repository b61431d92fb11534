"""A start that waits for a lock says who holds it, and ends its wait."""

from __future__ import annotations

import asyncio
import importlib
import os
import re

import asyncpg
import pytest
from structlog.testing import capture_logs

from tasklogs_server.store import SchemaRefused, blockers, migrate
from tasklogs_server.store.errors import STORE_ERRORS
from tasklogs_server.store.upgrade import LOCK_KEY
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.postgres import PostgresServer

# The package has a function of the same name.
MODULE = importlib.import_module("tasklogs_server.store.migrate")
SHORT_WAIT = {"statement_timeout": "0", "lock_timeout": "2s"}


@pytest.fixture
def old_database(shared_postgres: PostgresServer) -> str:
    name = f"empty_{os.urandom(4).hex()}"
    shared_postgres.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    dsn = shared_postgres.dsn(name)
    shared_postgres.run(migrate(dsn, "0001"))
    return dsn


@pytest.mark.parametrize(
    "held",
    [
        pytest.param(f"SELECT pg_advisory_lock({LOCK_KEY})", id="another migration"),
        pytest.param("BEGIN; LOCK TABLE tasks IN ACCESS SHARE MODE", id="a long transaction"),
    ],
)
async def test_a_lock_that_stays_held_ends_the_wait_and_its_holder_is_named(
    old_database: str, held: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "_SETTINGS", SHORT_WAIT)
    monkeypatch.setattr(blockers, "_LOOK_EVERY_SECONDS", 0.05)
    holder = await asyncpg.connect(old_database, server_settings={"application_name": "report"})
    try:
        await holder.execute(held)
        named = rf"process {holder.get_server_pid()} \(report\) since \d{{4}}-.* UTC"
        with capture_logs() as logged, pytest.raises(SchemaRefused, match=named):
            await migrate(old_database)
    finally:
        await holder.close()
    [blocked] = [one for one in logged if one["event"] == "migration.blocked"]
    assert re.search(named, blocked["holder"])
    await migrate(old_database)


async def test_a_migration_leaves_no_lock_in_its_session(old_database: str) -> None:
    await migrate(old_database)
    connection = await asyncpg.connect(old_database)
    try:
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        assert await connection.fetchval(locks) == 0
    finally:
        await connection.close()


@pytest.mark.parametrize("error", STORE_ERRORS)
async def test_an_error_of_the_watch_does_not_end_the_migration(
    old_database: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    has_looked_again = asyncio.Event()

    async def connect(dsn: str) -> asyncpg.Connection:
        looked.append(dsn)
        if len(looked) > 1:
            has_looked_again.set()
        raise error("the watch cannot connect")

    monkeypatch.setattr(blockers, "_LOOK_EVERY_SECONDS", 0)
    monkeypatch.setattr(blockers, "connect", connect)
    holder = await asyncpg.connect(old_database)
    try:
        await holder.execute("BEGIN; LOCK TABLE tasks IN ACCESS SHARE MODE")
        migrating = asyncio.create_task(migrate(old_database))
        waiting = asyncio.create_task(has_looked_again.wait())
        await asyncio.wait(
            [migrating, waiting], timeout=DEADLINE_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        waiting.cancel()
        assert len(looked) > 1
    finally:
        await holder.close()
    await migrating
