"""The system under test: everything that is deployed, as processes, and the networks between."""

from __future__ import annotations

import itertools
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tasklogs import BuildTransition, JobStatus, TaskLogsClient
from tests.support.fakes.faulty_proxy import FaultyProxy
from tests.support.fixtures.conditions import until
from tests.support.fixtures.ports import lasting_port
from tests.system.soak.child import Child, Spawner
from tests.system.soak.database import Database
from tests.system.soak.journal import Journal
from tests.system.soak.workspace import Load, Workspace

SERVING_SECONDS = 60.0
_SERVER_CLOCK = "server.clock"


class Server(Child):
    """`tasklogs serve` in an interpreter of its own."""

    def __init__(
        self, spawner: Spawner, name: str, said: Path, port: int, dsn: str, clock: Path
    ) -> None:
        command = (
            *(sys.executable, "-m", "tests.system.soak.moved_clock", str(clock)),
            *(f"--listen=127.0.0.1:{port}", f"--database-url={dsn}"),
        )
        super().__init__(spawner, name, said, lambda _: command)
        self.port = port


class World:
    """Implements tests.system.soak.fault.World."""

    def __init__(
        self,
        directory: Path,
        spawner: Spawner,
        postgres: Database,
        database_network: FaultyProxy,
        server: Server,
        agent_network: FaultyProxy,
        reader_network: FaultyProxy,
    ) -> None:
        self.directory = directory
        self.spawner = spawner
        self.postgres = postgres
        self.database_network = database_network
        self.server = server
        self.agent_network = agent_network
        self.reader_network = reader_network
        self.server_clock = directory / _SERVER_CLOCK
        self.workspaces: Sequence[Workspace] = ()
        self._servers = itertools.count(2)

    async def serving(self, port: int | None = None) -> None:
        wanted = port or self.server.port
        await until(lambda: _is_serving(wanted), seconds=SERVING_SECONDS)

    @asynccontextmanager
    async def second_server(self) -> AsyncIterator[Server]:
        number = next(self._servers)
        server = self._make_server(f"server {number}")
        await server.start()
        try:
            await self.serving(server.port)
            yield server
        finally:
            await server.kill()

    def _make_server(self, name: str) -> Server:
        return make_server(self.spawner, name, self.directory, self.postgres, self.database_network)

    async def open_workspaces(self, count: int, load: Load) -> None:
        """Create tasks, start their builds, and run an agent and a task app for each."""
        async with TaskLogsClient(f"127.0.0.1:{self.server.port}") as client:
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


def make_server(
    spawner: Spawner, name: str, directory: Path, postgres: Database, network: FaultyProxy
) -> Server:
    said = directory / f"{name.replace(' ', '-')}.out"
    dsn, clock = postgres.dsn_over(network.port), directory / _SERVER_CLOCK
    return Server(spawner, name, said, lasting_port(), dsn, clock)


@asynccontextmanager
async def running_world(
    directory: Path, tasks: int, load: Load, *, small_disk: bool
) -> AsyncIterator[World]:
    """Start everything. Stop it at the end of the block."""
    async with AsyncExitStack() as stack:
        journal = Journal(directory / "processes.jsonl")
        stack.callback(journal.close)
        postgres = await stack.enter_async_context(
            Database(directory / "postgres", journal, small_disk=small_disk)
        )
        database_network = await stack.enter_async_context(FaultyProxy(postgres.socket))
        postgres.network = database_network
        spawner = await stack.enter_async_context(Spawner(journal))
        server = make_server(spawner, "server", directory, postgres, database_network)
        await server.start()
        world = World(
            *(directory, spawner, postgres, database_network, server),
            *[await stack.enter_async_context(FaultyProxy(server.port)) for _ in range(2)],
        )
        await world.serving()
        await world.open_workspaces(tasks, load)
        yield world


async def _is_serving(port: int) -> bool:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
