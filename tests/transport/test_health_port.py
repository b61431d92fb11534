"""The port for probes that cannot use TLS: health without TLS, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tasklogs.v1 import tasks_pb2, tasks_pb2_grpc
from tasklogs_server.app import StartupError
from tasklogs_server.bus.shared import SharedBus
from tasklogs_server.settings import ServerSettings
from tasklogs_server.store import Store
from tasklogs_server.transport.health import Health
from tasklogs_server.transport.health_port import probes
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until
from tests.support.fixtures.postgres import PostgresServer
from tests.support.fixtures.server import MakeServer
from tests.system.hostile import frames
from tests.system.hostile.peer import Peer, Tally
from tests.system.hostile.target import Target

SERVING = health_pb2.HealthCheckResponse.SERVING


async def test_it_serves_health_and_nothing_else(make_server: MakeServer) -> None:
    async with make_server(health_listen="0") as server:
        assert server.health_address is not None
        async with grpc.aio.insecure_channel(server.health_address) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            for service in ("", "tasklogs.v1.TaskLogs", "liveness"):
                request = health_pb2.HealthCheckRequest(service=service)
                assert (await health.Check(request)).status == SERVING
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await tasks_pb2_grpc.TasksStub(channel).ListTasks(tasks_pb2.ListTasksRequest())

    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_without_its_database_a_server_is_alive_and_not_ready(
    make_server: MakeServer, postgres_server: PostgresServer
) -> None:
    async with make_server(dsn=postgres_server.dsn(), health_listen="0") as server:
        assert server.health_address is not None
        async with grpc.aio.insecure_channel(server.health_address) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            postgres_server.stop()

            async def is_ready() -> bool:
                answer = await health.Check(health_pb2.HealthCheckRequest())
                return bool(answer.status == SERVING)

            async def is_not_ready() -> bool:
                return not await is_ready()

            await until(is_not_ready)
            living = await health.Check(health_pb2.HealthCheckRequest(service="liveness"))
            assert living.status == SERVING
            postgres_server.start()
            await until(is_ready)


async def test_nothing_says_that_a_server_is_ready_before_it_has_joined_the_bus(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monitor of the store says so. It begins after that, and calls are accepted at once."""
    happened: list[str] = []

    async def watch(_: Store, __: Any) -> None:
        happened.append("monitor began")
        await asyncio.Event().wait()

    async def joined(_: SharedBus) -> None:
        for _turn in range(20):
            await asyncio.sleep(0)
        happened.append("joined")

    monkeypatch.setattr(Store, "watch", watch)
    monkeypatch.setattr(SharedBus, "joined", joined)
    async with make_server():
        await until(lambda: happened == ["joined", "monitor began"])


@pytest.mark.parametrize("listen", ["x", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:²"])
async def test_an_invalid_address_is_reported_in_one_line(
    make_server: MakeServer, listen: str
) -> None:
    with pytest.raises(StartupError, match=r"TASKLOGS_HEALTH_LISTEN.*PORT or HOST:PORT"):
        async with make_server(health_listen=listen):
            pass
    with pytest.raises(StartupError, match=r"TASKLOGS_METRICS_LISTEN.*PORT or HOST:PORT"):
        async with make_server(metrics_listen=listen):
            pass


async def test_watchers_are_limited_and_probes_are_answered_all_the_same(
    make_server: MakeServer,
) -> None:
    async with make_server(health_listen="0") as server:
        assert server.health_address is not None
        channels = [
            grpc.aio.insecure_channel(
                server.health_address, options=[("grpc.use_local_subchannel_pool", 1)]
            )
            for _ in range(10)
        ]
        try:
            watches: list[Any] = []
            for channel in channels:
                stub: Any = health_pb2_grpc.HealthStub(channel)
                watches += [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(15)]
            codes = await asyncio.gather(*map(_first_or_code, watches))
            assert codes.count(grpc.StatusCode.OK) == 100
            assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 50
            answer = await stub.Check(health_pb2.HealthCheckRequest())
            assert answer.status == SERVING
        finally:
            for channel in channels:
                await channel.close()


async def test_unfinished_calls_end_with_their_connection() -> None:
    async with health_port(connection_lasts=timedelta(seconds=0.3)) as target:
        tally = Tally()
        async with asyncio.timeout(DEADLINE_SECONDS), Peer.connected(target, tally) as peer:
            await peer.begin({frames.INITIAL_WINDOW_SIZE: 0})
            await peer.open_call(target, "/grpc.health.v1.Health/Check")
            await peer.call(target, "/grpc.health.v1.Health/Check", b"", None)
            await peer.call(target, "/grpc.health.v1.Health/Watch", b"", None)
            await peer.behave()
        assert tally.ended_by_the_server == 1


async def test_the_number_of_connections_is_small() -> None:
    tally = Tally()

    async def connect(target: Target) -> None:
        async with Peer.connected(target, tally) as peer:
            await peer.begin()
            await peer.behave()

    async with health_port() as target:
        peers = [asyncio.create_task(connect(target)) for _ in range(210)]
        await until(lambda: tally.ended_by_the_server == 10)
        for peer in peers:
            peer.cancel()
        await asyncio.wait(peers)


@asynccontextmanager
async def health_port(**options: Any) -> AsyncIterator[Target]:
    settings: Any = {"health_listen": "0"}
    async with probes(ServerSettings(**settings), Health(), **options) as address:
        assert address is not None
        yield Target(int(address.rpartition(":")[2]), task="", agent_token="")


async def _first_or_code(watch: Any) -> grpc.StatusCode:
    try:
        return grpc.StatusCode.OK if await watch.read() else grpc.StatusCode.UNKNOWN
    except grpc.aio.AioRpcError as error:
        return error.code()


async def test_long_service_names_are_not_kept(make_server: MakeServer) -> None:
    """A watched name is held in memory, and watchers are not authenticated."""
    async with make_server(health_listen="0") as server:
        assert server.health_address is not None
        for address, characters in ((server.address, 1_000_000), (server.health_address, 1_000)):
            async with grpc.aio.insecure_channel(address) as channel:
                stub: Any = health_pb2_grpc.HealthStub(channel)
                long = health_pb2.HealthCheckRequest(service="x" * characters)
                assert await _first_or_code(stub.Watch(long)) is grpc.StatusCode.INVALID_ARGUMENT
                short = stub.Watch(health_pb2.HealthCheckRequest(service="no.such.Service"))
                first = await short.read()
                assert first.status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
                short.cancel()
