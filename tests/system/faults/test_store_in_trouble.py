"""Postgres runs but cannot work: what a reader, a follower and an agent are told, and that
everything works again afterwards.

tests/system/end_to_end has the tests of a Postgres that is gone or silent.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import grpc
import pytest

from tasklogs.errors import TaskLogsRpcError
from tasklogs.v1 import task_logs_pb2 as pb
from tests.reads.follow_reader import Reader, reading
from tests.support.fakes.faulty_proxy import FaultyProxy
from tests.support.fixtures.agent_stream import Ended, ScriptedAgent, log_entry
from tests.support.fixtures.conditions import until
from tests.support.fixtures.postgres import FAST, PostgresServer
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.reports import TASK, report_build
from tests.support.fixtures.server import MakeServer, Server
from tests.system.faults.database_network import database_network
from tests.system.soak.faults.database import full_tables

_SLOW_SECONDS = 0.15


@dataclass
class Scene:
    """A task with one entry, the stream of its agent, and a follow of it."""

    postgres: PostgresServer
    network: FaultyProxy
    server: Server
    token: str
    agent: ScriptedAgent
    follower: Reader

    async def read(self) -> list[str]:
        """Return the stored log, read in one call."""
        answer = await self.server.logs.GetTaskLogs(read_request())
        return [one.content for one in answer.logs]

    async def append(self, content: str) -> Ended | None:
        """Append on the agent's stream. None if it was acknowledged."""
        await self.agent.append([log_entry(self.agent.sent, content)])
        await until(lambda: self.agent.acks[-1] == self.agent.sent or self.agent.has_ended)
        return await self.agent.ended() if self.agent.has_ended else None

    async def followed(self, *contents: str) -> None:
        await self.follower.until(
            lambda: list(self.follower.view.contents().values()) == list(contents)
        )


def read_request() -> pb.GetTaskLogsRequest:
    return pb.GetTaskLogsRequest(task=TASK, source=pb.LOG_SOURCE_SNAPSHOT)


@pytest.fixture
def small_postgres(migrated_data_dir: Path, tmp_path: Path) -> Iterator[PostgresServer]:
    """A Postgres that allows few connections."""
    data_dir = shutil.copytree(migrated_data_dir, tmp_path / "pg")
    with PostgresServer(data_dir, {**FAST, "max_connections": "20"}) as server:
        server.start()
        yield server


@pytest.fixture
async def scene(small_postgres: PostgresServer, make_server: MakeServer) -> AsyncIterator[Scene]:
    async with (
        database_network(small_postgres.dsn()) as (network, dsn),
        make_server(dsn) as server,
    ):
        token = (await server.create_task()).agent_token
        await report_build(server)
        follow = server.logs.FollowTaskLogs(
            pb.FollowTaskLogsRequest(task=TASK, source=pb.LOG_SOURCE_SNAPSHOT)
        )
        async with (
            reading(aiter(follow)) as follower,
            ScriptedAgent.connect(server, token) as agent,
        ):
            await agent.append([log_entry(0, "before")], open_epoch=True)
            await agent.acked()
            await follower.until(lambda: follower.view.caught_up)
            yield Scene(small_postgres, network, server, token, agent, follower)
            assert not follower.ended


async def flows_again(scene: Scene, *contents: str) -> None:
    """Check that a new agent stream appends, and that a reader and the old follower see it all."""

    async def connects() -> bool:
        try:
            async with ScriptedAgent.connect(scene.server, scene.token) as agent:
                await agent.append([log_entry(100, "after")])
                await agent.acked()
        except TaskLogsRpcError as error:
            if error.reason != "STORE_UNAVAILABLE":
                raise
            return False
        return True

    await until(connects)
    assert await scene.read() == [*contents, "after"]
    await scene.followed(*contents, "after")


async def is_refused_by_the_store(scene: Scene) -> None:
    """Check that an agent that connects is told to come later."""
    with pytest.raises(TaskLogsRpcError) as raised:
        async with ScriptedAgent.connect(scene.server, scene.token):
            pass
    assert (raised.value.code, raised.value.reason) == (
        grpc.StatusCode.UNAVAILABLE,
        "STORE_UNAVAILABLE",
    )
    assert raised.value.retry_after


def assert_is_unavailable(ended: Ended | None) -> None:
    """Check that Postgres refused, and that the caller is told to wait before the next try."""
    assert ended is not None
    assert (ended.code, ended.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")


@asynccontextmanager
async def read_only(postgres: PostgresServer) -> AsyncIterator[None]:
    connection = await asyncpg.connect(postgres.dsn("postgres"))
    try:
        await connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await connection.execute("SELECT pg_reload_conf()")
        await until(lambda: _is_read_only(connection))
        yield
    finally:
        await connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.close()


async def _is_read_only(connection: asyncpg.Connection[asyncpg.Record]) -> bool:
    return bool(await connection.fetchval("SHOW default_transaction_read_only") == "on")


async def test_a_read_only_postgres_serves_reads_and_refuses_writes(scene: Scene) -> None:
    async with read_only(scene.postgres):
        assert_is_unavailable(await scene.append("not stored"))
        await is_refused_by_the_store(scene)
        assert await scene.read() == ["before"]
    await flows_again(scene, "before")


@asynccontextmanager
async def all_connections_taken(scene: Scene) -> AsyncIterator[None]:
    """Let others take all connections, and cut those of the server."""
    flood = []
    try:
        scene.network.cut()
        while True:
            try:
                flood.append(await asyncpg.connect(scene.postgres.dsn("postgres"), timeout=5))
            except asyncpg.TooManyConnectionsError:
                break
        yield
    finally:
        for connection in flood:
            await connection.close()


async def test_a_postgres_out_of_connections_is_unavailable_to_all_and_ends_no_follow(
    scene: Scene,
) -> None:
    async with all_connections_taken(scene):
        refusal = await refused(scene.server.logs.GetTaskLogs(read_request()))
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.UNAVAILABLE,
            "STORE_UNAVAILABLE",
        )
        assert refusal.retry_seconds
        assert_is_unavailable(await scene.append("not stored"))
        await is_refused_by_the_store(scene)
        follow = scene.server.logs.FollowTaskLogs(pb.FollowTaskLogsRequest(task=TASK))
        refusal = await refused(follow.read())
        assert refusal.reason == "STORE_UNAVAILABLE"
    await flows_again(scene, "before")


async def test_a_full_disk_serves_reads_and_refuses_writes(scene: Scene) -> None:
    async with full_tables(scene.postgres.dsn()):
        assert_is_unavailable(await scene.append("not stored"))
        assert await scene.read() == ["before"]
        async with ScriptedAgent.connect(scene.server, scene.token) as again:
            assert again.welcome.entries == 1
            await again.append([log_entry(1, "not stored either")])
            assert_is_unavailable(await again.ended())
    await flows_again(scene, "before")


async def test_a_slow_postgres_only_delays_calls(scene: Scene) -> None:
    scene.network.delay(_SLOW_SECONDS)
    assert await scene.append("slowly") is None
    assert await scene.read() == ["before", "slowly"]
    await scene.followed("before", "slowly")
    await scene.network.heal()
    await flows_again(scene, "before", "slowly")
