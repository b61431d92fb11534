"""The system under test: everything that is deployed, as processes, and the networks between."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tasklogs import BuildTransition, JobStatus, TaskLogsClient
from tests.support.fakes.faulty_proxy import FaultyProxy
from tests.support.fixtures.conditions import until
from tests.system.soak.child import Spawner
from tests.system.soak.database import Database
from tests.system.soak.fault import Server as AnyServer
from tests.system.soak.journal import Journal
from tests.system.soak.meeting import BusNode, Meeting, meeting
from tests.system.soak.networks import Balancer, Networks
from tests.system.soak.server import IDLE_SECONDS, Server
from tests.system.soak.workspace import Load, Workspace

SERVING_SECONDS = 60.0
_SERVER_CLOCK = "server.clock"


@dataclass(frozen=True)
class Deployment:
    """What is deployed. `plants`: mistakes in every server, which checks must find."""

    tasks: int
    servers: int = 1
    workers: int = 1
    """Of the last server."""
    bus: str = "postgres"
    small_disk: bool = False
    plants: Sequence[str] = ()


class World:
    """Implements tests.system.soak.fault.World."""

    def __init__(
        self,
        directory: Path,
        spawner: Spawner,
        postgres: Database,
        database_network: Networks,
        meeting: Meeting,
        deployment: Deployment,
    ) -> None:
        """`agent_network` and `reader_network` are set before the first workspace opens."""
        self.directory = directory
        self.spawner = spawner
        self.postgres = postgres
        self.database_network = database_network
        self.bus_network = meeting.network
        self.bus_nodes: Sequence[BusNode] = meeting.nodes
        self.server_clock = directory / _SERVER_CLOCK
        self.workspaces: Sequence[Workspace] = ()
        self._meeting = meeting
        self._deployment = deployment
        self.used_since = 0.0
        """Until then the servers had no call of a client."""
        self._numbers = itertools.count(2)
        self.agent_network: FaultyProxy
        self.reader_network: FaultyProxy
        self.servers: Sequence[Server] = [
            self._server(index) for index in range(len(database_network.proxies))
        ]
        self.balancer = Balancer([server.port for server in self.servers])

    def _server(self, index: int, number: int | None = None) -> Server:
        """`index`: of its networks."""
        port = self._meeting.port_of(index)
        is_last = number is None and index == self._deployment.servers - 1
        return Server(
            self.spawner,
            f"server {number or index + 1}",
            self.directory,
            database=self.postgres.dsn_over(self.database_network.proxies[index].port),
            bus=self._meeting.bus_of(index),
            bus_database=None if port is None else self.postgres.dsn_over(port),
            clock=self.server_clock,
            plants=self._deployment.plants,
            workers=self._deployment.workers if is_last else 1,
        )

    async def serving(self, *servers: AnyServer) -> None:
        for server in servers:
            await until(server.is_serving, seconds=SERVING_SECONDS)

    @asynccontextmanager
    async def second_server(self, chance: Random) -> AsyncIterator[Server]:
        """Run another server. Where there are several, it is one of them."""
        if len(self.servers) > 1:
            server = chance.choice(self.servers)
            try:
                yield server
            finally:
                await server.start()
                await self.serving(server)
            return
        server = self._server(0, next(self._numbers))
        await server.start()
        try:
            await self.serving(server)
            yield server
        finally:
            await server.kill()

    async def open_workspaces(self, count: int, load: Load) -> None:
        """Create tasks, start their builds, and run an agent and a task app for each."""
        async with TaskLogsClient(self.servers[0].address) as client:
            for number in range(1, count + 1):
                name = f"task-{number:02}"
                token = (await client.create_task(name)).agent_token
                task = f"local/{name}"
                await client.report_build(task, 1, BuildTransition.START, JobStatus.SUCCEEDED)
                directory = self.directory / name
                workspace = Workspace(
                    *(number, task, token, directory),
                    *(f"127.0.0.1:{self.agent_network.port}", self.spawner, load),
                )
                self.workspaces = (*self.workspaces, workspace)
                await workspace.task_app.start()
                await workspace.agent.start()


@asynccontextmanager
async def running_world(
    directory: Path, deployment: Deployment, load: Load
) -> AsyncIterator[World]:
    """Start everything. Stop it at the end of the block."""
    async with AsyncExitStack() as stack:
        journal = Journal(directory / "processes.jsonl")
        stack.callback(journal.close)
        postgres = await stack.enter_async_context(
            Database(directory / "postgres", journal, small_disk=deployment.small_disk)
        )
        database_network = Networks(
            [
                [await stack.enter_async_context(FaultyProxy(postgres.socket))]
                for _ in range(deployment.servers)
            ]
        )
        postgres.network = database_network
        meets = await stack.enter_async_context(
            meeting(deployment.bus, deployment.servers, database_network)
        )
        spawner = await stack.enter_async_context(Spawner(journal))
        world = World(directory, spawner, postgres, database_network, meets, deployment)
        first, *others = world.servers
        await first.start()
        await world.serving(first)  # it makes the tables
        for server in others:
            await server.start()
        await world.serving(*others)
        await stack.enter_async_context(world.balancer.running())
        world.agent_network, world.reader_network = world.balancer.networks = [
            await stack.enter_async_context(FaultyProxy(world.balancer.choose)) for _ in range(2)
        ]
        await asyncio.sleep(IDLE_SECONDS)
        world.used_since = time.monotonic()
        await world.open_workspaces(deployment.tasks, load)
        yield world
