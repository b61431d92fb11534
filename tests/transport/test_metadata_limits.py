"""Tokens and other metadata: up to the limits every call passes, above them each fails alike."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from tasklogs.connection.channel import open_channel
from tasklogs.connection.limits import MAX_METADATA_BYTES, MAX_TOKEN_BYTES
from tasklogs.v1 import tasks_pb2, tasks_pb2_grpc
from tests.support.fixtures.authenticated import Guarded, Metadata, bearing, guarded
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.server import MakeServer

CALLS = 300
OpenChannel = Callable[[str], grpc.aio.Channel]
# What tracing and proxies add; W3C asks for `baggage` of 8,192 bytes, and for no more.
ALSO_SENT = (
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("tracestate", "x" * 512),
    ("baggage", "b" * 8192),
    ("x-request-id", "i" * 128),
    ("x-forwarded-for", "2001:db8::1, " * 10),
    ("cookie", "c" * 4096),
)


@pytest.fixture
async def guard(make_server: MakeServer, tmp_path: Path) -> AsyncIterator[Guarded]:
    # All calls are of one caller.
    async with guarded(make_server, tmp_path, calls_at_once=10_000) as guard:
        yield guard


def token_of(guard: Guarded, size_bytes: int) -> str:
    """Return a valid token of this size, or up to 3 bytes less: base64 has no other sizes."""
    without = len(guard.token("alice", groups=""))
    token = guard.token("alice", groups="g" * ((size_bytes - without) * 3 // 4))
    assert size_bytes - 3 <= len(token) <= size_bytes
    return token


async def ends(channel: grpc.aio.Channel, metadata: Metadata) -> Counter[object]:
    """Make many calls at once. Return how they ended: None, or code, reason and message."""
    stub = tasks_pb2_grpc.TasksStub(channel)

    async def end() -> object:
        try:
            await stub.ListTasks(tasks_pb2.ListTasksRequest(), metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return error.code(), (error.details() or "").split(" (")[0]
        return None

    return Counter(await asyncio.gather(*(end() for _ in range(CALLS))))


@pytest.mark.parametrize("opened", [open_channel, grpc.aio.insecure_channel])
@pytest.mark.parametrize("size_bytes", [8190, 10_240, MAX_TOKEN_BYTES])
async def test_every_call_with_a_token_up_to_the_limit_passes(
    guard: Guarded, opened: OpenChannel, size_bytes: int
) -> None:
    metadata = (*bearing(token_of(guard, size_bytes)), *ALSO_SENT)
    async with opened(guard.server.address) as channel:
        assert await ends(channel, metadata) == {None: CALLS}


async def test_every_call_with_a_longer_token_is_refused_in_the_same_words(guard: Guarded) -> None:
    metadata = (*bearing(token_of(guard, MAX_TOKEN_BYTES + 4)), *ALSO_SENT)
    async with open_channel(guard.server.address) as channel:
        said = await refused(
            tasks_pb2_grpc.TasksStub(channel).ListTasks(
                tasks_pb2.ListTasksRequest(), metadata=metadata
            )
        )
        found = await ends(channel, metadata)

    assert said.reason == "TOKEN_INVALID"
    assert said.message == "not authenticated: token invalid: it has more than 16384 bytes"
    assert found == {(grpc.StatusCode.UNAUTHENTICATED, said.message): CALLS}


@pytest.mark.parametrize("opened", [open_channel, grpc.aio.insecure_channel])
@pytest.mark.parametrize("size_bytes", [MAX_METADATA_BYTES, 60_000])
async def test_every_call_with_more_metadata_is_refused_in_the_words_of_grpc(
    guard: Guarded, opened: OpenChannel, size_bytes: int
) -> None:
    async with opened(guard.server.address) as channel:
        found = await ends(channel, bearing("t" * size_bytes))

    said = "received metadata size exceeds hard limit"
    assert found == {(grpc.StatusCode.RESOURCE_EXHAUSTED, said): CALLS}


async def test_an_agent_token_that_is_too_long_is_refused_like_any_other(guard: Guarded) -> None:
    token = (await guard.create("alice")).agent_token
    call = guard.server.agents.Connect(metadata=bearing(token + "x" * MAX_TOKEN_BYTES))

    said = await refused(call.read())

    assert (said.code, said.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")


async def test_the_port_for_probes_refuses_too_much_metadata_each_time(
    make_server: MakeServer,
) -> None:
    async with make_server(health_listen="0") as server:
        assert server.health_address is not None
        async with grpc.aio.insecure_channel(server.health_address) as channel:
            health: Any = HealthStub(channel)

            async def code(size_bytes: int) -> grpc.StatusCode:
                call = health.Check(HealthCheckRequest(), metadata=(("x", "x" * size_bytes),))
                return grpc.StatusCode(await call.code())

            for size_bytes, expected in (
                (7000, grpc.StatusCode.OK),
                (8192, grpc.StatusCode.RESOURCE_EXHAUSTED),
            ):
                for _ in range(4):  # it takes few calls at once
                    codes = Counter(await asyncio.gather(*(code(size_bytes) for _ in range(10))))
                    assert codes == {expected: 10}
