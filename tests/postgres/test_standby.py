"""The standby that tests promote is one, and a promotion loses what it had not received."""

from __future__ import annotations

import asyncpg

from tests.support.fixtures.postgres import PostgresServer
from tests.support.fixtures.standby import Standby


async def counted(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        count: int = await connection.fetchval("SELECT count(*) FROM noted")
        return count
    finally:
        await connection.close()


async def test_a_promoted_standby_lacks_what_was_committed_after_it_fell_behind(
    postgres_server: PostgresServer, standby: Standby
) -> None:
    connection = await asyncpg.connect(postgres_server.dsn())
    try:
        await connection.execute("CREATE TABLE noted (number integer)")
        await connection.execute("INSERT INTO noted SELECT generate_series(1, 10)")
        standby.catch_up()
        standby.fall_behind()
        await connection.execute("INSERT INTO noted SELECT generate_series(11, 15)")
    finally:
        await connection.close()
    standby.promote()
    assert await counted(postgres_server.dsn()) == 15
    assert await counted(standby.server.dsn()) == 10
