"""What tests.support.fixtures.postgres promises to all other tests."""

import asyncpg
import pytest

from tests.postgres.test_supervisor import query
from tests.support.fixtures.postgres import PostgresServer


@pytest.mark.parametrize("turn", ["first", "second"])
async def test_each_test_has_its_own_migrated_database(database: str, turn: str) -> None:
    assert await query(database, "SELECT count(*) FROM alembic_version") == 1
    await query(database, "CREATE TABLE only_here AS SELECT 1")


async def test_an_open_connection_does_not_stop_the_cleanup(database: str) -> None:
    connection = await asyncpg.connect(database)
    connection.terminate()


async def test_a_server_of_a_tests_own_is_durable_and_keeps_its_data_after_a_kill(
    postgres_server: PostgresServer,
) -> None:
    assert await query(postgres_server.dsn(), "SHOW fsync") == "on"
    assert await query(postgres_server.dsn(), "SELECT count(*) FROM alembic_version") == 1
    await query(postgres_server.dsn(), "CREATE TABLE kept AS SELECT 42 AS answer")
    before = postgres_server.pid
    postgres_server.kill()
    postgres_server.start()
    assert postgres_server.pid != before
    assert await query(postgres_server.dsn(), "SELECT answer FROM kept") == 42
