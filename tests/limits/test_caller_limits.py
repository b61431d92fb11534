"""The limits of one caller, and how the server refuses calls beyond them."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tasklogs import ReconnectWaits, TaskLogsClient
from tasklogs.v1 import task_agents_pb2 as agents_pb
from tasklogs.v1 import task_logs_pb2 as logs_pb
from tasklogs.v1 import tasks_pb2 as pb
from tasklogs_server.domain.caller import LOCAL, Agent, User
from tasklogs_server.domain.errors import LimitExceeded
from tasklogs_server.limits.caller_limits import Allowance, CallerLimits
from tests.support.fixtures.authenticated import bearing, guarded
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until
from tests.support.fixtures.moved_clock import Clock
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.reports import make_active
from tests.support.fixtures.server import MakeServer, Server

CODE = grpc.StatusCode
ALICE, BOB = User("alice"), User("bob")


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limits_of(clock: Clock) -> CallerLimits:
    allowance = Allowance(calls_per_second=2, calls_at_once=3, streams=2)
    return CallerLimits(allowance, clock=clock)


def taken(limits: CallerLimits, caller: User | Agent, calls: int = 100) -> int:
    """Make calls at once. Returns how many are accepted."""
    for done in range(calls):
        try:
            limits.count_call(caller)
        except LimitExceeded:
            return done
    return calls


def test_a_burst_of_calls_is_limited_and_allowed_again_after_a_pause(clock: Clock) -> None:
    limits = limits_of(clock)
    assert taken(limits, ALICE) == 3
    clock.now += 1
    assert taken(limits, ALICE) == 2
    clock.now += 1_000_000
    assert taken(limits, ALICE) == 3


def test_each_caller_has_one_limit_for_all_its_tokens(clock: Clock) -> None:
    limits = limits_of(clock)
    assert taken(limits, ALICE) == 3
    assert taken(limits, User("alice", is_admin=True)) == 0
    assert taken(limits, BOB) == 3
    assert taken(limits, Agent(UUID(int=1), b"one")) == 3
    assert taken(limits, Agent(UUID(int=1), b"other")) == 0


def test_callers_named_local_are_not_limited(clock: Clock) -> None:
    assert taken(limits_of(clock), LOCAL) == 100


def test_one_is_told_when_to_come_again(clock: Clock) -> None:
    limits = limits_of(clock)
    taken(limits, ALICE)
    with pytest.raises(LimitExceeded) as caught:
        limits.count_call(ALICE)
    assert caught.value.retry_after is not None
    assert timedelta(seconds=0.5) <= caught.value.retry_after <= timedelta(seconds=1)


async def test_a_stream_counts_until_its_call_ends(clock: Clock) -> None:
    limits = limits_of(clock)
    leave = asyncio.Event()

    async def stream() -> None:
        limits.count_stream(ALICE)
        await leave.wait()

    open_ = [asyncio.create_task(stream()) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(LimitExceeded):
        await asyncio.create_task(stream())
    limits.count_stream(BOB)
    leave.set()
    await asyncio.gather(*open_)
    leave.clear()
    again = asyncio.create_task(stream())
    leave.set()
    await again


async def test_calls_beyond_the_rate_are_refused_and_others_are_not(
    make_server: MakeServer, tmp_path: Path
) -> None:
    async with guarded(make_server, tmp_path, calls_per_second=0.01, calls_at_once=3) as guard:

        async def call(subject: str) -> pb.ListTasksResponse:
            metadata = guard.as_(subject)
            return await guard.server.tasks.ListTasks(pb.ListTasksRequest(), metadata=metadata)

        for _ in range(3):
            await call("alice")
        said = await refused(call("alice"))
        assert said.code is CODE.RESOURCE_EXHAUSTED
        assert said.retry_seconds is not None
        await call("bob")


async def test_calls_that_are_denied_count_too(make_server: MakeServer, tmp_path: Path) -> None:
    async with guarded(make_server, tmp_path, calls_per_second=0.01, calls_at_once=3) as guard:
        token = (await guard.create("alice")).agent_token
        upload, lists = guard.server.agents.UploadLogSnapshot, guard.server.tasks.ListTasks

        async def codes(call: Callable[[], Any]) -> list[grpc.StatusCode]:
            return [(await refused(call())).code for _ in range(4)]

        bob = guard.as_("bob")
        by_user = await codes(lambda: upload(agents_pb.UploadLogSnapshotRequest(), metadata=bob))
        by_agent = await codes(lambda: lists(pb.ListTasksRequest(), metadata=bearing(token)))
    expected = [CODE.PERMISSION_DENIED] * 3 + [CODE.RESOURCE_EXHAUSTED]
    assert by_user == expected
    assert by_agent == expected


async def test_streams_beyond_the_limit_are_refused_until_one_ends(
    make_server: MakeServer, tmp_path: Path
) -> None:
    async with guarded(make_server, tmp_path, streams_per_caller=2) as guard:
        await guard.create("alice")

        def follow() -> Any:
            return guard.server.logs.FollowTaskLogs(
                logs_pb.FollowTaskLogsRequest(task="alice/demo"), metadata=guard.as_("alice")
            )

        open_ = [follow(), follow()]
        for call in open_:
            await call.read()
        said = await refused(follow().read())
        assert said.code is CODE.RESOURCE_EXHAUSTED
        assert said.retry_seconds is not None
        open_[0].cancel()

        async def has_room() -> bool:
            call = follow()
            try:
                await call.read()
            except grpc.aio.AioRpcError:
                return False
            call.cancel()
            return True

        await until(has_room)


async def test_health_watches_of_all_callers_together_are_limited(
    make_server: MakeServer,
) -> None:
    async with make_server(health_watches=2) as server:
        health: Any = health_pb2_grpc.HealthStub(server.channel)

        def watch() -> Any:
            return health.Watch(health_pb2.HealthCheckRequest())

        open_ = [watch(), watch()]
        for call in open_:
            await call.read()
        assert (await refused(watch().read())).code is CODE.RESOURCE_EXHAUSTED
        await health.Check(health_pb2.HealthCheckRequest())
        for call in open_:
            call.cancel()


async def test_a_live_read_without_a_deadline_ends_at_the_servers_default(
    make_server: MakeServer,
) -> None:
    async with make_server(default_deadline=0.3, agent_wait=60) as server:
        await server.create_task()
        await make_active(server)
        read = server.logs.GetTaskLogs(logs_pb.GetTaskLogsRequest(task="local/demo"))
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert (await refused(read)).code is CODE.DEADLINE_EXCEEDED


async def test_an_old_connection_ends_and_the_client_continues(make_server: MakeServer) -> None:
    waits = ReconnectWaits(first=timedelta(milliseconds=5), cap=timedelta(milliseconds=50))
    again: list[object] = []
    async with (
        asyncio.timeout(60),
        make_server(connection_age=0.5, connection_age_grace=0.2) as server,
        TaskLogsClient(server.address, reconnect_waits=waits) as client,
    ):
        await client.create_task("demo")
        follow = client.follow("local/demo", on_reconnect=again.append)
        reading = asyncio.create_task(read_on(follow))
        await until(lambda: len(again) >= 2)
        assert (await client.get_task("local/demo")).name == "demo"
        reading.cancel()
        await asyncio.wait([reading])


async def read_on(follow: Any) -> None:
    async for _ in follow:
        pass


GOAWAY, ENHANCE_YOUR_CALM = 7, 0xB


async def test_a_peer_that_pings_all_the_time_is_disconnected(server: Server) -> None:
    host, _, port = server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    ping = struct.pack(">I", 8)[1:] + b"\x06\x00" + struct.pack(">I", 0) + b"\0" * 8
    settings = b"\x00\x00\x00\x04\x00" + struct.pack(">I", 0)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + ping * 20)
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            header = await reader.readexactly(9)
            payload = await reader.readexactly(int.from_bytes(header[:3], "big"))
            if header[3] == GOAWAY:
                break
    assert int.from_bytes(payload[4:8], "big") == ENHANCE_YOUR_CALM
    writer.close()
