"""Postgres in trouble: restarted, out of connections, slow, read-only, or its disk full."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg

from tests.system.soak.fault import Fault, Part, Postgres, World

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_CONNECT_SECONDS = 5.0
_FLOOD_EVERY_SECONDS = 0.1


class DatabaseRestarted:
    """A fast shutdown, as for an update, and a restart."""

    name = "database-restarted"
    parts = frozenset({Part.POSTGRES})
    seconds = (0.0, 10.0)
    lets_calls_finish = False

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        try:
            await world.postgres.end()
            await asyncio.sleep(seconds)
        finally:
            await world.postgres.start()
        return f"shut down and started after {seconds:.1f} s"


class DatabaseSlow:
    """Every answer of Postgres takes hundreds of milliseconds longer."""

    name = "database-slow"
    parts = frozenset({Part.DATABASE_NETWORK})
    seconds = (5.0, 20.0)
    lets_calls_finish = True

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        delay = chance.uniform(0.05, 0.2)
        network = world.database_network.some(chance)
        network.delay(delay)
        try:
            await asyncio.sleep(seconds)
        finally:
            await network.heal()
        return f"{2 * delay * 1000:.0f} ms for each answer: {seconds:.1f} s"


class DatabaseOutOfConnections:
    """Others take all connections of Postgres, and those of the server are cut."""

    name = "database-out-of-connections"
    parts = frozenset({Part.POSTGRES, Part.DATABASE_NETWORK})
    seconds = (3.0, 15.0)
    lets_calls_finish = False

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        flood: list[Connection] = []
        try:
            await _take_all(world.postgres, flood)
            world.database_network.cut()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while True:  # also take the connections that the server gives up
                        await _take_all(world.postgres, flood)
                        await asyncio.sleep(_FLOOD_EVERY_SECONDS)
        finally:
            for connection in flood:
                connection.terminate()
        return f"{len(flood)} connections taken by others: {seconds:.1f} s"


async def _take_all(postgres: Postgres, flood: list[Connection]) -> None:
    with contextlib.suppress(asyncpg.TooManyConnectionsError):
        while True:
            flood.append(await asyncpg.connect(postgres.dsn("postgres"), timeout=_CONNECT_SECONDS))


class DatabaseReadOnly:
    """Reads work and every write is refused, as after a failover to a standby."""

    name = "database-read-only"
    parts = frozenset({Part.POSTGRES})
    seconds = (3.0, 15.0)
    lets_calls_finish = False

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        try:
            await world.postgres.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            # Open connections are affected from their next transaction on.
            await world.postgres.execute("SELECT pg_reload_conf()")
            await asyncio.sleep(seconds)
        finally:
            await world.postgres.execute("ALTER SYSTEM RESET default_transaction_read_only")
            await world.postgres.execute("SELECT pg_reload_conf()")
        return f"every write refused: {seconds:.1f} s"


# The tables that grow with the logs. Heads and tasks are updated in place while pages have space.
_GROWING = ("log_entries", "log_tail_parts", "log_events")
_FULL = """
    CREATE OR REPLACE FUNCTION disk_is_full() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
    END $$"""


class DatabaseDiskFull:
    """Tables accept no new rows. If the disk is really full, the WAL cannot grow either."""

    name = "database-disk-full"
    parts = frozenset({Part.POSTGRES})
    seconds = (3.0, 15.0)
    lets_calls_finish = False

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        free_bytes = await world.postgres.fill_disk()
        if free_bytes is not None:
            try:
                await asyncio.sleep(seconds)
            finally:
                await world.postgres.empty_disk()
                await _started_again(world.postgres)
            return f"a real disk, {free_bytes} bytes of it taken: {seconds:.1f} s"
        async with full_tables(world.postgres.dsn()):
            await asyncio.sleep(seconds)
        return f"Postgres reports a full disk (a trigger raises the error): {seconds:.1f} s"


async def _started_again(postgres: Postgres) -> None:
    """Start Postgres again if it ended: without space for its WAL it may not recover."""
    try:
        await postgres.execute("SELECT 1")
    except (OSError, asyncpg.PostgresError):
        await postgres.end()
        await postgres.start()


@asynccontextmanager
async def full_tables(dsn: str) -> AsyncIterator[None]:
    """Make every insert fail as Postgres does when it cannot extend a file."""
    connection = await asyncpg.connect(dsn, timeout=_CONNECT_SECONDS)
    try:
        await connection.execute(_FULL)
        try:
            for table in _GROWING:
                await connection.execute(
                    f"CREATE TRIGGER disk_is_full BEFORE INSERT ON {table}"
                    " FOR EACH ROW EXECUTE FUNCTION disk_is_full()"
                )
            yield
        finally:
            for table in _GROWING:
                await connection.execute(f"DROP TRIGGER IF EXISTS disk_is_full ON {table}")
    finally:
        await connection.close()


FAULTS: tuple[Fault, ...] = (
    DatabaseRestarted(),
    DatabaseSlow(),
    DatabaseOutOfConnections(),
    DatabaseReadOnly(),
    DatabaseDiskFull(),
)
