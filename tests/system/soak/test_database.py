"""The Postgres of a run, and the network before it."""

from __future__ import annotations

from pathlib import Path

import asyncpg

from tests.support.fakes.faulty_proxy import FaultyProxy
from tests.system.soak.database import Database
from tests.system.soak.journal import Journal
from tests.system.soak.networks import Networks


async def test_the_network_leads_to_a_restarted_postgres_with_a_long_path(tmp_path: Path) -> None:
    data_dir = tmp_path / ("long" * 25) / "postgres"
    journal = Journal(tmp_path / "processes.jsonl")
    async with Database(data_dir, journal) as postgres:
        socket = postgres.socket
        assert not socket.is_relative_to(data_dir)  # such a path is too long for a socket
        async with FaultyProxy(socket) as network:
            postgres.network = Networks([[network]])
            await postgres.end()
            await postgres.start()
            assert postgres.socket != socket
            connection = await asyncpg.connect(postgres.dsn_over(network.port), timeout=10)
            assert await connection.fetchval("SELECT 1") == 1
            await connection.close()
    journal.close()
