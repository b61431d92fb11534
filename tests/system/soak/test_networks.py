"""The balancer before several servers, and the networks between them and the bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tests.support.fakes.faulty_proxy import FaultyProxy
from tests.support.fixtures.conditions import until
from tests.system.soak.networks import Balancer, Networks

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@asynccontextmanager
async def healthy() -> AsyncIterator[tuple[int, health.aio.HealthServicer]]:
    """Run a server that only has a health service. Yields its port, too."""
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port, servicer
    finally:
        await server.stop(None)


async def test_a_fault_of_one_server_affects_all_its_ways_to_the_bus() -> None:
    async with AsyncExitStack() as stack:
        proxies = [[await stack.enter_async_context(FaultyProxy(9)) for _ in "ab"] for _ in "abc"]
        networks = Networks(proxies)
        chosen = [networks.some(Random(seed)).of_servers for seed in range(20)]
        assert proxies in chosen
        assert all([one] in chosen for one in proxies)
        assert all(len(one) in (1, 3) for one in chosen)


async def test_new_connections_go_to_the_server_with_the_fewest() -> None:
    async with healthy() as (one, _), healthy() as (other, _), AsyncExitStack() as stack:
        balancer = Balancer([one, other])
        network = await stack.enter_async_context(FaultyProxy(balancer.choose))
        balancer.networks = [network]
        streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        for _ in range(4):
            before = network.open_to(one) + network.open_to(other)
            streams.append(await asyncio.open_connection("127.0.0.1", network.port))
            stack.callback(streams[-1][1].transport.abort)
            await until(
                lambda before=before: (  # type: ignore[misc]
                    network.open_to(one) + network.open_to(other) > before
                )
            )
        assert network.open_to(one) == network.open_to(other) == 2


async def test_a_server_that_does_not_say_serving_gets_no_connection_if_another_does() -> None:
    async with healthy() as (one, first), healthy() as (other, second):
        balancer = Balancer([one, other])
        async with balancer.running():
            await first.set("", _NOT_SERVING)
            await until(lambda: balancer.serving == {other})
            assert {balancer.choose() for _ in range(20)} == {other}
            await second.set("", _NOT_SERVING)
            await until(lambda: balancer.serving == set())
            assert {balancer.choose() for _ in range(40)} == {one, other}
            await first.set("", _SERVING)
            await until(lambda: balancer.serving == {one})
