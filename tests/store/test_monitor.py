"""Postgres stops, freezes and returns. No caller waits while it is away."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from tasklogs_server.concurrency import stall_free_timeout
from tasklogs_server.domain.errors import StoreBusy, StoreUnavailable
from tasklogs_server.store.circuit_breaker import CircuitBreaker
from tasklogs_server.store.connections import Connections
from tasklogs_server.store.monitor import Monitor
from tasklogs_server.store.store import Store
from tests.store.logs import Connection
from tests.support.fakes.faulty_proxy import FaultyProxy
from tests.support.fakes.postgres_hosts import refusing_postgres
from tests.support.fixtures.conditions import until
from tests.support.fixtures.postgres import PostgresServer

# A monitor checks every half second, and waits 2.2 s for a silent Postgres.
NOTICED_SECONDS = 10.0
# A refusal takes microseconds. The rest of this time is for a busy machine.
AT_ONCE_SECONDS = 1.0


class Watched:
    """Connections to a Postgres with a monitor, and what the monitor has reported."""

    def __init__(self, dsn: str, size: int = 2) -> None:
        self.circuit_breaker = CircuitBreaker()
        self.connections = Connections(dsn, size=size, circuit_breaker=self.circuit_breaker)
        self.reported: list[bool] = []
        self.beat: Callable[[asyncpg.Connection[asyncpg.Record]], Awaitable[None]] = _no_beat
        self._watch = Monitor(dsn, self.circuit_breaker, lambda one: self.beat(one), self._report)

    async def _report(self, works: bool) -> None:
        self.reported.append(works)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        watching = asyncio.create_task(self._watch.run(), name="a watch")
        try:
            await until(lambda: bool(self.reported))
            yield
            assert not watching.done()
        finally:
            watching.cancel()
            await asyncio.wait([watching])
            await self.connections.close()

    async def ask(self, statement: str = "SELECT 1") -> object:
        async with self.connections.use() as connection:
            return await connection.fetchval(statement)


async def _no_beat(_: object) -> None:
    pass


@pytest.fixture
async def watched(postgres_server: PostgresServer) -> AsyncIterator[Watched]:
    one = Watched(postgres_server.dsn())
    async with one.running():
        assert one.reported == [True]
        yield one


@pytest.fixture
def frozen(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """A Postgres to freeze. It is resumed at the end: a frozen one cannot be stopped."""
    yield postgres_server
    postgres_server.thaw()


async def refused(asking: Awaitable[object]) -> float:
    """Return how long the refusal took. Fail if there is none."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await asking
    return time.monotonic() - began


def reasons(logged: Sequence[Mapping[str, Any]]) -> list[str]:
    return [one["reason"] for one in logged if one["event"] == "store.lost"]


async def answers(watched: Watched) -> bool:
    try:
        return await watched.ask() == 1
    except StoreUnavailable:
        return False


async def test_a_stopped_postgres_is_reported_refused_and_found_again(
    watched: Watched, postgres_server: PostgresServer
) -> None:
    await watched.ask()

    await asyncio.to_thread(postgres_server.stop)
    assert await refused(watched.ask()) < AT_ONCE_SECONDS
    await until(lambda: watched.reported == [True, False])

    await asyncio.to_thread(postgres_server.start)
    await until(lambda: watched.reported == [True, False, True])
    assert await watched.ask() == 1


async def test_why_postgres_is_away_is_logged_once_for_each_change_of_the_reason() -> None:
    refusals = [
        ("53300", "sorry, too many clients already"),
        ("53300", "sorry, too many clients already"),
        # Numbers, such as those of files and processes, are no other reason.
        ("58P01", 'could not open file "base/5/1259"'),
        ("58P01", 'could not open file "base/5/1247"'),
        ("3D000", 'database "x" does not exist'),
        ("53300", "sorry, too many clients already"),
    ]
    async with refusing_postgres(*refusals) as (port, left):
        watched = Watched(f"postgresql://postgres@127.0.0.1:{port}/x?sslmode=disable")
        with capture_logs() as logged:
            async with watched.running():
                await until(lambda: not left)
                # The monitor logs the last one after it has asked.
                await until(lambda: len(reasons(logged)) == 4)
                with pytest.raises(StoreUnavailable) as raised:
                    await watched.ask()
    assert reasons(logged) == [refusals[number][1] for number in (0, 2, 4, 5)]
    assert "clients" not in str(raised.value)
    assert watched.reported == [False]


async def test_callers_of_a_frozen_postgres_fail_soon_and_later_ones_at_once(
    watched: Watched, frozen: PostgresServer
) -> None:
    await watched.ask()
    frozen.freeze()
    rows = [(b"x" * 100_000,)] * 100  # more than a socket takes

    async def write() -> None:
        async with watched.connections.use() as connection:
            await connection.executemany("SELECT $1::bytea", rows)

    # One waits for its response, one to send its statement, the others for a connection.
    waiting = [asyncio.create_task(refused(watched.ask())), asyncio.create_task(refused(write()))]
    waiting += [asyncio.create_task(refused(watched.ask())) for _ in range(20)]
    assert max(await asyncio.gather(*waiting)) < NOTICED_SECONDS

    assert watched.reported == [True, False]
    for _ in range(5):
        assert await refused(watched.ask()) < AT_ONCE_SECONDS

    frozen.thaw()
    await until(lambda: watched.reported == [True, False, True])
    assert await watched.ask() == 1


async def test_a_caller_that_is_connecting_to_a_frozen_postgres_fails_soon(
    watched: Watched, frozen: PostgresServer
) -> None:
    frozen.freeze()

    took = await asyncio.gather(*(refused(watched.ask()) for _ in range(3)))

    # Connecting would time out after 5 s, and the third caller would begin only then.
    assert max(took) < NOTICED_SECONDS / 2


async def test_a_network_that_drops_everything_counts_as_a_stopped_postgres(
    postgres_server: PostgresServer,
) -> None:
    [directory] = re.findall(r"host=([^&]+)", postgres_server.dsn())
    [port] = re.findall(r"port=(\d+)", postgres_server.dsn())
    async with FaultyProxy(Path(directory) / f".s.PGSQL.{port}") as network:
        one = Watched(f"postgresql://postgres@127.0.0.1:{network.port}/tasklogs")
        async with one.running():
            await one.ask()
            network.mute(swallow=True)
            assert await refused(one.ask()) < NOTICED_SECONDS
            assert await refused(one.ask()) < AT_ONCE_SECONDS
            await network.heal()
            await until(lambda: one.reported == [True, False, True])
            assert await one.ask() == 1


async def test_a_killed_connection_does_not_count_as_a_stopped_postgres(
    watched: Watched, database: str
) -> None:
    async with watched.connections.use() as connection:
        pid = await connection.fetchval("SELECT pg_backend_pid()")
    asking = asyncio.create_task(refused(watched.ask("SELECT pg_sleep(60)")))
    await asyncio.sleep(0)
    async with watched.connections.use() as other:
        await until(lambda: other.fetchval("SELECT pg_terminate_backend($1)", pid))
    await asking

    await until(lambda: answers(watched))
    assert watched.reported == [True]


async def test_a_slow_statement_is_not_cut_off(watched: Watched) -> None:
    assert await watched.ask("SELECT 7 FROM pg_sleep(3)") == 7
    assert watched.reported == [True]


async def test_a_postgres_that_refuses_the_heartbeat_is_reported_and_still_read(
    watched: Watched,
) -> None:
    refusing = True

    async def beat(connection: asyncpg.Connection[asyncpg.Record]) -> None:
        if refusing:
            await connection.execute("BEGIN READ ONLY")
            try:
                await connection.execute("UPDATE processes SET heartbeat_at = clock_timestamp()")
            finally:
                await connection.execute("ROLLBACK")

    watched.beat = beat
    with capture_logs() as logged:
        await until(lambda: watched.reported == [True, False])
    [refused] = [one for one in logged if one["event"] == "store.heartbeat_refused"]
    assert refused["reason"] == "cannot execute UPDATE in a read-only transaction"
    assert await watched.ask() == 1

    refusing = False
    await until(lambda: watched.reported == [True, False, True])


@pytest.mark.parametrize("is_connected", [True, False])
async def test_a_postgres_that_answers_is_not_away_while_this_process_is_busy(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, is_connected: bool
) -> None:
    """Each turn of the loop takes longer than Postgres may take to answer."""
    monkeypatch.setattr("tasklogs_server.store.monitor._ANSWER_SECONDS", 0.25)
    monkeypatch.setattr(stall_free_timeout, "_LOOK_SECONDS", 0.005)
    watched = Watched(postgres_server.dsn())
    async with watched.running():
        looks = 0

        async def beat(_: object) -> None:
            nonlocal looks
            looks += 1

        watched.beat = beat
        if not is_connected:
            watched._watch._hang_up()
        watched._watch._beat_at = None
        watched.circuit_breaker.suspect()
        for _ in range(40):
            time.sleep(0.3)  # noqa: ASYNC251 - the stall
            await asyncio.sleep(0)
            if looks:
                break
        await until(lambda: looks > 0)
        assert watched.reported == [True]


async def test_a_caller_that_gets_no_connection_in_time_fails_with_store_busy(
    database: str, sql: Connection
) -> None:
    connections = Connections(database, size=1, acquire_timeout=timedelta(seconds=0.05))
    async with connections.use():
        with pytest.raises(StoreBusy) as refusal:
            async with connections.use():
                pass
    assert refusal.value.retry_after > timedelta()
    async with connections.use() as connection:
        assert await connection.fetchval("SELECT 1") == 1
    await connections.close()


async def test_the_heartbeats_of_the_other_processes_are_found(database: str) -> None:
    one, other = [
        await Store.open(database, read_connections=1, lease=timedelta(seconds=30))
        for _ in range(2)
    ]
    try:
        assert (await one.other_heartbeats()).keys() == {other.process_id}
        assert (await other.other_heartbeats()).keys() == {one.process_id}
    finally:
        await one.close()
        await other.close()
