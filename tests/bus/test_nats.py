"""The bus over a real cluster of three NATS nodes that die and freeze."""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest
from structlog.testing import capture_logs

from tasklogs_server.bus.interface import PeerEvent
from tasklogs_server.bus.nats import NatsTransport
from tasklogs_server.bus.notes import Deleted
from tasklogs_server.bus.transport import Receiver
from tests.bus.processes import Process, World, met
from tests.support.fixtures.conditions import until
from tests.support.fixtures.nats_cluster import Cluster, Node, nats_cluster
from tests.support.fixtures.ports import lasting_port

A = uuid.uuid4()


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with nats_cluster() as running:
        yield running


@pytest.fixture
def world(cluster: Cluster) -> World:
    async def cut(_: Process) -> None:
        raise NotImplementedError

    return World(lambda: NatsTransport(cluster.urls), cut)


def node_of(process: Process, cluster: Cluster) -> Node:
    client = cast("NatsTransport", process.faults.transport)._client
    assert client is not None
    assert client.connected_url is not None
    (node,) = [one for one in cluster.nodes if one.port == client.connected_url.port]
    return node


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "freezes"])
async def test_when_a_node_fails_its_processes_go_to_another(
    world: World, cluster: Cluster, how: signal.Signals
) -> None:
    async with world.process() as one, world.process() as other:
        await met(one, other)
        one.events.clear()
        other.events.clear()
        node_of(one, cluster).signal(how)
        await until(lambda: (None, PeerEvent.GAP) in one.events)
        # The other process may have been at the same node.
        await until(lambda: PeerEvent.GAP in {event for _, event in other.events})
        await met(one, other)
        one.bus.publish(Deleted(A))
        await until(lambda: Deleted(A) in other.notes)
        other.bus.publish(Deleted(A))
        await until(lambda: Deleted(A) in one.notes)


async def test_a_process_that_has_joined_gets_the_next_note(world: World) -> None:
    async with world.process() as one:
        for _ in range(30):
            async with world.process() as other:
                await until(lambda other=other: one.bus.reaches(other.id))  # type: ignore[misc]
                one.bus.publish(Deleted(A))
                await until(lambda other=other: Deleted(A) in other.notes)  # type: ignore[misc]


async def test_a_process_joins_when_the_first_node_comes() -> None:
    cluster = Cluster()

    async def cut(_: Process) -> None:
        raise NotImplementedError

    world = World(lambda: NatsTransport(cluster.urls), cut)
    try:
        async with world.process(waits=False) as one:
            one.bus.publish(Deleted(A))
            await cluster.nodes[2].start(cluster.routes)
            await one.bus.joined()
            async with world.process() as other:
                await met(one, other)
    finally:
        await cluster.nodes[2].kill()


async def test_a_user_who_may_not_subscribe_is_reported_and_does_not_join(tmp_path: Path) -> None:
    rules = tmp_path / "rules.conf"
    rules.write_text(
        'authorization { users = [{ user: "a", password: "b",'
        ' permissions: { subscribe: { deny: ">" } } }] }'
    )
    node = Node(lasting_port(), lasting_port())
    changes: list[bool] = []
    transport = NatsTransport([f"nats://a:b@127.0.0.1:{node.port}"])
    try:
        await node.start(f"nats://127.0.0.1:{node.cluster_port}", "--config", str(rules))
        with capture_logs() as logged:
            running = asyncio.create_task(
                transport.run(uuid.uuid4(), Receiver(lambda _: None, changes.append))
            )
            await until(lambda: bool(logged))
            running.cancel()
            await asyncio.wait([running])
    finally:
        await node.kill()

    [entry] = logged
    assert (entry["event"], entry["log_level"]) == ("bus.lost", "warning")
    assert "permissions violation" in entry["reason"].lower()
    assert True not in changes
