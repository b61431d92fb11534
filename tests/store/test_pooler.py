"""Pool modes of a real PgBouncer, as the check at the start finds them out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tasklogs_server.store import pooler
from tasklogs_server.store.preflight import why_unusable
from tests.support.fakes.faulty_proxy import FaultyProxy
from tests.support.fixtures.pgbouncer import PgBouncer, needs_pgbouncer, pgbouncer

pytestmark = needs_pgbouncer

BUSY_CLIENTS = 6


async def reason_behind(pooler: PgBouncer) -> str:
    return await why_unusable(pooler.dsn) or ""


@pytest.mark.parametrize(
    "settings",
    [
        {"pool_mode": "transaction"},
        {"pool_mode": "statement"},
        {"pool_mode": "transaction", "default_pool_size": 1},
        {"pool_mode": "transaction", "min_pool_size": 9, "server_round_robin": 1},
        {"pool_mode": "transaction", "server_round_robin": 1},
        {"pool_mode": "transaction", "default_pool_size": 1, "reserve_pool_size": 5},
        {"pool_mode": "transaction", "server_lifetime": 0},
        {"pool_mode": "transaction", "server_reset_query_always": 1},
    ],
    ids=lambda settings: " ".join(f"{name}={value}" for name, value in settings.items()),
)
async def test_sessions_that_are_shared_are_noticed_every_time(
    database: str, settings: dict[str, str | int]
) -> None:
    async with pgbouncer(database, **settings) as one:
        for _ in range(3):
            assert "pool_mode = session" in await reason_behind(one)


async def test_one_client_notices_alone_that_its_session_changes(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooler, "_CLIENTS_OF_A_POOLER", 1)
    async with (
        pgbouncer(
            database, pool_mode="transaction", server_round_robin=1, default_pool_size=BUSY_CLIENTS
        ) as one,
        busy_clients(one.dsn),
    ):
        assert "pool_mode = session" in await reason_behind(one)


async def test_sessions_that_are_shared_are_noticed_while_others_use_the_pool(
    database: str,
) -> None:
    async with (
        pgbouncer(database, pool_mode="transaction", default_pool_size=BUSY_CLIENTS) as one,
        busy_clients(one.dsn),
    ):
        for _ in range(3):
            assert "pool_mode = session" in await reason_behind(one)


async def test_sessions_that_are_shared_are_noticed_behind_several_poolers(database: str) -> None:
    async with (
        pgbouncer(database, pool_mode="transaction") as one,
        pgbouncer(database, pool_mode="transaction") as another,
        Alternating(port_of(one), port_of(another)) as balancer,
    ):
        url = one.dsn.replace(str(port_of(one)), str(balancer.port))
        assert "pool_mode = session" in (await why_unusable(url) or "")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"server_round_robin": 1},
        {"min_pool_size": 5},
        {"server_lifetime": 0},
        {"ignore_startup_parameters": "options"},
    ],
    ids=str,
)
async def test_a_pooler_that_keeps_the_session_is_used(
    database: str, settings: dict[str, str | int]
) -> None:
    async with pgbouncer(database, pool_mode="session", **settings) as one:
        for _ in range(3):
            assert await reason_behind(one) == ""


async def test_a_pool_that_is_too_small_is_told(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooler, "_ASK_SECONDS", 0.5)
    async with pgbouncer(database, pool_mode="session", default_pool_size=3) as one:
        reason = await reason_behind(one)
    assert "only 3 connections to it work at a time" in reason
    assert "pool_size" in reason


@pytest.mark.parametrize("mode", ["transaction", "session"])
async def test_the_check_leaves_nothing_in_the_sessions_of_the_pool(
    database: str, mode: str
) -> None:
    async with pgbouncer(database, pool_mode=mode, server_reset_query="") as one:
        await reason_behind(one)
        connection = await asyncpg.connect(one.dsn, statement_cache_size=0)
        async with connection.transaction():
            left = await connection.fetchrow(
                "SELECT current_setting('statement_timeout') AS timeout,"
                " (SELECT count(*) FROM pg_prepared_statements WHERE name <> '') AS statements,"
                " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') AS locks"
            )
        await connection.close()
    assert left is not None
    assert tuple(left) == ("0", 0, 0)


@contextlib.asynccontextmanager
async def busy_clients(url: str) -> AsyncIterator[None]:
    """Other clients of the pool: each runs one transaction after another."""

    async def use() -> None:
        connection = await asyncpg.connect(url, statement_cache_size=0)
        try:
            while True:
                async with connection.transaction():
                    await connection.execute("SELECT pg_sleep(0.001)")
        finally:
            connection.terminate()

    using = [asyncio.create_task(use()) for _ in range(BUSY_CLIENTS)]
    try:
        yield
    finally:
        for task in using:
            task.cancel()
        await asyncio.wait(using)


def port_of(one: PgBouncer) -> int:
    return int(one.dsn.partition("@")[2].partition(":")[2].partition("/")[0])


class Alternating(FaultyProxy):
    """Gives its connections to two targets in turn, as a balancer does."""

    def __init__(self, *targets: int) -> None:
        super().__init__(targets[0])
        self._targets = targets

    @property
    def target(self) -> int | Path:
        return self._targets[self.connections % len(self._targets)]

    @target.setter
    def target(self, _: int | Path) -> None:
        pass
