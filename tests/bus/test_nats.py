"""The bus over a real cluster of three NATS nodes that die and freeze."""

from __future__ import annotations

import signal
import uuid
from collections.abc import AsyncIterator
from typing import cast

import pytest

from tasklogs_server.bus.interface import PeerEvent
from tasklogs_server.bus.nats import NatsTransport
from tasklogs_server.bus.notes import Deleted
from tests.bus.processes import Process, World, met
from tests.support.fixtures.conditions import until
from tests.support.fixtures.nats_cluster import Cluster, Node, nats_cluster

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
