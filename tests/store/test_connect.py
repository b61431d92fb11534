"""Several hosts in a database URL, of which one is the primary."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from datetime import timedelta

import asyncpg
import pytest

from tasklogs_server.domain.errors import StoreUnavailable
from tasklogs_server.store import connect as connecting
from tasklogs_server.store.circuit_breaker import CircuitBreaker
from tasklogs_server.store.connect import Connection, connect
from tasklogs_server.store.connections import Connections
from tasklogs_server.store.errors import NoHostUsable, in_words
from tasklogs_server.store.generations import Generations
from tasklogs_server.store.monitor import Monitor
from tests.support.fakes.faulty_proxy import FaultyProxy
from tests.support.fakes.postgres_hosts import (
    STARTING,
    black_hole,
    refusing_host,
    refusing_postgres,
    silent_host,
)
from tests.support.fixtures.conditions import until
from tests.support.fixtures.postgres import PostgresServer
from tests.support.fixtures.standby import Standby, socket_of

MakeHost = Callable[[], AbstractContextManager[int]]


def url_of(*ports: int, query: str = "sslmode=disable") -> str:
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return f"postgresql://postgres@{hosts}/tasklogs?{query}"


@asynccontextmanager
async def reached(server: PostgresServer) -> AsyncIterator[FaultyProxy]:
    """Put a port of loopback before a Postgres, which listens on a unix socket only."""
    async with FaultyProxy(socket_of(server.dsn())) as network:
        yield network


async def is_primary(url: str) -> bool:
    connection = await connect(url)
    try:
        return not await connection.fetchval("SELECT pg_is_in_recovery()")
    finally:
        await connection.close()


@pytest.mark.parametrize("standby_first", [True, False])
async def test_several_hosts_mean_the_primary_in_whatever_order(
    postgres_server: PostgresServer, standby: Standby, standby_first: bool
) -> None:
    async with reached(postgres_server) as primary, reached(standby.server) as copy:
        ports = (copy.port, primary.port) if standby_first else (primary.port, copy.port)
        assert await is_primary(url_of(*ports))


async def test_several_unix_sockets_mean_the_primary_too(
    postgres_server: PostgresServer, standby: Standby
) -> None:
    sockets = [socket_of(one.dsn()) for one in (standby.server, postgres_server)]
    hosts = ",".join(str(one.parent) for one in sockets)
    ports = ",".join(one.suffix.removeprefix(".") for one in sockets)
    assert await is_primary(f"postgresql://postgres@/tasklogs?host={hosts}&port={ports}")


async def test_the_url_may_ask_for_any_host(
    postgres_server: PostgresServer, standby: Standby
) -> None:
    async with reached(postgres_server) as primary, reached(standby.server) as copy:
        query = "sslmode=disable&target_session_attrs=any"
        assert not await is_primary(url_of(copy.port, primary.port, query=query))


@pytest.fixture
def long_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host's own time-out is longer than the test: only the next host can help."""
    monkeypatch.setattr(connecting, "_CONNECT_TIMEOUT_SECONDS", 600.0)


@pytest.mark.parametrize("make_host", [silent_host, black_hole, refusing_host])
@pytest.mark.parametrize("dead_first", [True, False])
@pytest.mark.usefixtures("long_wait")
async def test_a_host_that_does_not_answer_does_not_keep_it_from_the_primary(
    postgres_server: PostgresServer, make_host: MakeHost, dead_first: bool
) -> None:
    async with reached(postgres_server) as primary:
        with make_host() as dead:
            ports = (dead, primary.port) if dead_first else (primary.port, dead)
            assert await is_primary(url_of(*ports))


@pytest.mark.usefixtures("long_wait")
async def test_a_host_that_is_silent_after_the_greeting_does_not_either(
    postgres_server: PostgresServer, standby: Standby
) -> None:
    async with reached(postgres_server) as primary, reached(standby.server) as copy:
        await is_primary(url_of(primary.port))
        standby.server.freeze()
        try:
            assert await is_primary(url_of(copy.port, primary.port))
        finally:
            standby.server.thaw()


@pytest.mark.parametrize(
    "refusal", [STARTING, ("53300", "sorry, too many clients already"), ("28P01", "no entry")]
)
async def test_a_postgres_that_refuses_does_not_keep_it_from_the_next_host(
    postgres_server: PostgresServer, refusal: tuple[str, str]
) -> None:
    async with reached(postgres_server) as primary, refusing_postgres(refusal) as (port, _):
        assert await is_primary(url_of(port, primary.port))


async def test_the_failure_of_each_host_is_told(
    standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "_CONNECT_TIMEOUT_SECONDS", 1.0)
    async with reached(standby.server) as copy, refusing_postgres(STARTING) as (starting, _):
        with silent_host() as silent, pytest.raises(NoHostUsable) as raised:
            await connect(url_of(silent, copy.port, starting))
    assert in_words(raised.value) == (
        f"127.0.0.1:{silent}: it does not answer;"
        f" 127.0.0.1:{copy.port}: it is a standby, or read-only;"
        f" 127.0.0.1:{starting}: {STARTING[1]}"
    )


def test_what_a_pooler_said_before_it_closed_the_connection_is_told() -> None:
    lost = asyncpg.ConnectionDoesNotExistError("connection was closed: server login has failed")
    assert in_words(lost) == "connection was closed: server login has failed"


async def test_every_connection_has_its_settings(database: str) -> None:
    connection = await connect(database)
    try:
        for name, value in connecting.SESSION_SETTINGS.items():
            assert await connection.fetchval("SELECT current_setting($1)", name) == value
        assert await connection.fetchval("SELECT current_setting('application_name')") == "tasklogs"
    finally:
        await connection.close()


async def test_a_connection_that_the_check_refuses_is_closed(database: str) -> None:
    refused: list[Connection] = []

    async def check(connection: Connection) -> None:
        refused.append(connection)
        raise StoreUnavailable(timedelta(seconds=1))

    with pytest.raises(StoreUnavailable):
        await connect(database, check=check)
    assert refused[0].is_closed()


class Watched:
    """The connections of a store with a monitor, as a running server has them."""

    def __init__(self, dsn: str) -> None:
        self.circuit_breaker, generations = CircuitBreaker(), Generations()
        self.connections = Connections(
            dsn, size=2, circuit_breaker=self.circuit_breaker, generations=generations
        )
        self.works: list[bool] = []
        self._monitor = Monitor(
            dsn, self.circuit_breaker, self._beat, self._report, generations=generations
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        watching = asyncio.create_task(self._monitor.run())
        try:
            await until(lambda: self.works == [True])
            yield
        finally:
            watching.cancel()
            await asyncio.wait([watching])
            await self.connections.close()

    async def writes(self) -> bool:
        try:
            async with self.connections.use() as connection:
                await connection.execute("CREATE TABLE IF NOT EXISTS written ()")
        except StoreUnavailable:
            return False
        return True

    async def _beat(self, _: Connection) -> None:
        pass

    async def _report(self, works: bool) -> None:
        self.works.append(works)


@contextmanager
def frozen(server: PostgresServer) -> Iterator[None]:
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


@pytest.mark.usefixtures("long_wait")
async def test_a_running_server_finds_the_promoted_standby_while_its_primary_is_silent(
    postgres_server: PostgresServer, standby: Standby
) -> None:
    async with reached(postgres_server) as first, reached(standby.server) as second:
        watched = Watched(url_of(first.port, second.port))
        async with watched.running():
            assert await watched.writes()
            with frozen(postgres_server):
                await until(lambda: watched.circuit_breaker.is_away)
                await asyncio.to_thread(standby.promote)
                await until(watched.writes)


async def test_a_running_server_leaves_a_former_primary_that_still_answers(
    postgres_server: PostgresServer, standby: Standby
) -> None:
    async with reached(postgres_server) as first, reached(standby.server) as second:
        watched = Watched(url_of(first.port, second.port))
        async with watched.running():
            assert await watched.writes()
            await asyncio.to_thread(standby.promote)
            # Nothing tells it of the promotion before its connections break.
            with frozen(postgres_server):
                await until(lambda: watched.circuit_breaker.is_away)
                await until(watched.writes)
            for _ in range(3):
                first.cut()
                second.cut()
                await until(watched.writes)
                async with watched.connections.use() as connection:
                    assert connection.generation.endswith("/00000002")


@pytest.mark.parametrize(
    "lost",
    [
        asyncpg.InternalClientError("cannot switch to state 12; another operation is in progress"),
        asyncpg.InterfaceError("cannot call Transaction.__aexit__(): the underlying connection"),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.AdminShutdownError("terminating connection due to administrator command"),
        ConnectionRefusedError(),
        ConnectionResetError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_the_driver_says_at_a_switchover_means_that_the_connection_is_lost(
    database: str, lost: Exception
) -> None:
    circuit_breaker = CircuitBreaker()
    connections = Connections(database, size=1, circuit_breaker=circuit_breaker)
    with pytest.raises(StoreUnavailable) as raised:
        async with connections.use():
            raise lost
    assert raised.value.__cause__ is lost
    assert circuit_breaker.suspected.is_set()
    await connections.close()


@pytest.mark.parametrize(
    "refusal",
    [
        ("3D000", 'database "x" does not exist'),
        ("28P01", 'password authentication failed for user "x"'),
        ("53300", "sorry, too many clients already"),
        ("08P01", "server login has been failing, try again later"),
        ("57P03", "the database system is shutting down"),
        ("42501", "permission denied for database"),
    ],
    ids=lambda refusal: refusal[0],
)
async def test_a_refused_connection_means_that_the_store_is_unavailable(
    refusal: tuple[str, str],
) -> None:
    async with refusing_postgres(refusal) as (port, _):
        circuit_breaker = CircuitBreaker()
        connections = Connections(url_of(port), size=1, circuit_breaker=circuit_breaker)
        with pytest.raises(StoreUnavailable) as raised:
            async with connections.use():
                pass
        assert in_words(raised.value) == refusal[1]
        assert circuit_breaker.suspected.is_set()
