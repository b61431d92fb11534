"""`tasklogs serve` behind a real PgBouncer."""

from __future__ import annotations

import pytest

from tests.cli.command import run
from tests.support.fixtures.pgbouncer import needs_pgbouncer, pgbouncer

pytestmark = needs_pgbouncer


@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_a_pooler_that_changes_the_connection_is_refused_in_one_line(
    database: str, mode: str
) -> None:
    async with pgbouncer(database, pool_mode=mode) as pooler:
        finished = await run("serve", "--listen=127.0.0.1:0", f"--database-url={pooler.dsn}")
    assert finished.code == 1
    [line] = finished.stderr.splitlines()
    assert "pool_mode = session" in line


async def test_it_serves_behind_a_pooler_that_keeps_the_connection(database: str) -> None:
    from tests.support.fixtures.server import serving

    async with pgbouncer(database, pool_mode="session") as pooler:
        async with serving(pooler.dsn) as server:
            await server.create_task()
