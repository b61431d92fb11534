"""Networks between several servers and one thing, and the balancer before the servers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.fakes.faulty_proxy import Direction, FaultyProxy, Target

_CHECK_EVERY_SECONDS = 0.5
_CHECK_SECONDS = 1.0
_BACKOFF_MS = 500


class Networks:
    """The FaultyProxies of some servers, used together as if they were one: fault.ServerNetworks.

    `of_servers`: those of each server.
    """

    def __init__(self, of_servers: Sequence[Sequence[FaultyProxy]]) -> None:
        self.of_servers = of_servers
        self.proxies = [proxy for one in of_servers for proxy in one]

    @property
    def target(self) -> Target:
        """Where new connections lead."""
        return self.proxies[0].target

    @target.setter
    def target(self, target: Target) -> None:
        for proxy in self.proxies:
            proxy.target = target

    @property
    def cuts(self) -> int:
        """How many cuts happened."""
        return sum(proxy.cuts for proxy in self.proxies)

    def some(self, chance: random.Random) -> Networks:
        """Return the networks of all servers, or of one."""
        if len(self.of_servers) == 1 or chance.random() < 0.5:
            return self
        return Networks([chance.choice(self.of_servers)])

    def cut(self) -> None:
        for proxy in self.proxies:
            proxy.cut()

    def cut_after(
        self,
        byte_count: int,
        direction: Direction = Direction.TO_CALLER,
        *,
        everyone: bool = True,
    ) -> None:
        """The bytes are counted for each server."""
        for proxy in self.proxies:
            proxy.cut_after(byte_count, direction, everyone=everyone)

    def mute(self, directions: Direction = Direction.BOTH, *, swallow: bool = False) -> None:
        for proxy in self.proxies:
            proxy.mute(directions, swallow=swallow)

    def delay(
        self,
        seconds: float | Callable[[int], float],
        directions: Direction = Direction.BOTH,
    ) -> None:
        for proxy in self.proxies:
            proxy.delay(seconds, directions)

    async def refuse(self) -> None:
        for proxy in self.proxies:
            await proxy.refuse()

    async def heal(self) -> None:
        for proxy in self.proxies:
            await proxy.heal()


class Balancer:
    """Chooses a server for each new connection: of those that say SERVING, the least loaded.

    Connections that are open stay where they are. If no server says SERVING, any may be chosen.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports
        self.serving = set(ports)
        """Those that said SERVING when they were last asked."""
        self.networks: Sequence[FaultyProxy] = ()
        """The networks that it chooses for."""

    def choose(self) -> int:
        """Return the port of the server."""
        serving = [port for port in self._ports if port in self.serving] or self._ports
        return min(serving, key=lambda port: (self._open_to(port), random.random()))

    def _open_to(self, port: int) -> int:
        return sum(network.open_to(port) for network in self.networks)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask the servers for their health within the block, unless there is only one."""
        ports = self._ports if len(self._ports) > 1 else ()
        checks = [asyncio.create_task(self._check(port)) for port in ports]
        try:
            yield
        finally:
            for check in checks:
                check.cancel()
            if checks:
                await asyncio.wait(checks)

    async def _check(self, port: int) -> None:
        options = [("grpc.max_reconnect_backoff_ms", _BACKOFF_MS)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            while True:
                if await is_serving(stub, _CHECK_SECONDS):
                    self.serving.add(port)
                else:
                    self.serving.discard(port)
                await asyncio.sleep(_CHECK_EVERY_SECONDS)


async def is_serving(stub: Any, seconds: float) -> bool:
    """Whether a server says SERVING. `stub`: a HealthStub."""
    try:
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=seconds)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
