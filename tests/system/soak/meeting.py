"""How the servers of a run meet: over Postgres or NATS, each over a network of its own."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from tests.support.fakes.faulty_proxy import Address, FaultyProxy, Target
from tests.support.fixtures.nats_cluster import Cluster, Node, nats_cluster
from tests.system.soak.networks import Networks

BUSES = ("postgres", "nats")


@dataclass(frozen=True)
class Meeting:
    """What the servers need to meet, in the order of the servers."""

    network: Networks
    """From each server to Postgres, or to each node."""
    nodes: Sequence[BusNode] = ()
    """The nodes of the NATS cluster, if there is one."""

    def bus_of(self, index: int) -> str:
        """Return the setting `bus` of a server."""
        if not self.nodes:
            return "postgres"
        return ",".join(f"nats://{proxy.address}" for proxy in self.network.of_servers[index])

    def port_of(self, index: int) -> int | None:
        """Return the port of a server's way to Postgres for notes. None: it uses none."""
        return None if self.nodes else self.network.of_servers[index][0].port


@dataclass
class BusNode:
    """A node of the NATS cluster, as faults use it."""

    name: str
    node: Node
    routes: str
    _changing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def signal(self, number: signal.Signals) -> None:
        self.node.signal(number)

    async def kill(self) -> None:
        await self.node.kill()

    async def start(self) -> None:
        async with self._changing:
            await self.node.start(self.routes, *_OPTIONS)


# Else a client learns of ways to the nodes that no fault can reach.
_OPTIONS = ("--no_advertise",)


@asynccontextmanager
async def meeting(bus: str, servers: int, database: Networks) -> AsyncIterator[Meeting]:
    """Prepare a bus for so many servers."""
    async with AsyncExitStack() as stack:

        async def network(*targets: Target) -> Networks:
            """`targets`: of each server."""
            return Networks(
                [
                    [await stack.enter_async_context(FaultyProxy(target)) for target in targets]
                    for _ in range(servers)
                ]
            )

        def postgres() -> Address:
            """Return where the servers find Postgres now."""
            target = database.target
            return target() if callable(target) else target

        if bus == "postgres":
            yield Meeting(await network(postgres))
            return
        cluster: Cluster = await stack.enter_async_context(nats_cluster(*_OPTIONS))
        nodes = [
            BusNode(f"bus node {number}", node, cluster.routes)
            for number, node in enumerate(cluster.nodes, 1)
        ]
        yield Meeting(await network(*(node.port for node in cluster.nodes)), nodes)
