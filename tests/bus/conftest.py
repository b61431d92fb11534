"""`world`: a place where processes meet, of each kind that there is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import asyncpg
import pytest

from tasklogs_server.bus import shared
from tasklogs_server.bus.nats import NatsTransport
from tasklogs_server.bus.postgres import PostgresTransport
from tasklogs_server.store.connect import connect
from tasklogs_server.store.connections import Connection
from tests.bus.hub import Hub, HubTransport
from tests.bus.processes import Process, World
from tests.support.fixtures.nats_cluster import Cluster, nats_cluster


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the times of the bus be short."""
    monkeypatch.setattr(shared, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(shared, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(shared, "LONELY_BEAT_SECONDS", 0.2)
    monkeypatch.setattr(shared, "GAP_PAUSE_SECONDS", 0.05)


def in_memory() -> World:
    hub = Hub()

    async def cut(process: Process) -> None:
        cast("HubTransport", process.faults.transport).cut()

    return World(lambda: HubTransport(hub), cut)


def over_postgres(dsn: str) -> World:
    opened: dict[PostgresTransport, list[Connection]] = {}

    def make() -> PostgresTransport:
        connections: list[Connection] = []

        async def open_connection() -> Connection:
            connections.append(await connect(dsn))
            return connections[-1]

        transport = PostgresTransport(open_connection)
        opened[transport] = connections
        return transport

    async def cut(process: Process) -> None:
        of_it = opened[cast("PostgresTransport", process.faults.transport)][-1]
        admin = await asyncpg.connect(dsn)
        try:
            await admin.execute("SELECT pg_terminate_backend($1)", of_it.get_server_pid())
        finally:
            await admin.close()

    return World(make, cut)


def over_nats(cluster: Cluster) -> World:
    """Each process prefers another node."""
    made = 0

    def make() -> NatsTransport:
        nonlocal made
        made += 1
        return NatsTransport([cluster.urls[made % 3]])

    async def cut(process: Process) -> None:
        transport = cast("NatsTransport", process.faults.transport)
        assert transport._client is not None
        writer = cast("Any", transport._client)._transport._io_writer
        writer.transport.abort()

    return World(make, cut)


@pytest.fixture(params=["memory", "postgres", "nats"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        yield in_memory()
    elif request.param == "nats":
        async with nats_cluster() as cluster:
            yield over_nats(cluster)
    else:
        yield over_postgres(request.getfixturevalue("database"))
