"""What one caller, and all callers together, may ask of reflection and of health watches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from tasklogs.publish.stream_status import StreamCall
from tests.middleware.unread_responses import Reader
from tests.support.fixtures.authenticated import Metadata, guarded
from tests.support.fixtures.conditions import until
from tests.support.fixtures.refusals import refused, refused_stream
from tests.support.fixtures.server import MakeServer, Server
from tests.system.hostile import frames

METHODS = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
]
OF_ONE_CALLER, OF_ALL = 8, 32
LIST = reflection_pb2.ServerReflectionRequest(list_services="")
DESCRIBE = reflection_pb2.ServerReflectionRequest(file_containing_symbol="tasklogs.v1.Tasks")


@pytest.fixture(params=METHODS, ids=["v1", "v1alpha"])
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def opened(server: Server, method: str, metadata: Metadata = ()) -> StreamCall:
    untyped: Any = server.channel
    call = untyped.stream_stream(
        method,
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    return StreamCall(call(metadata=metadata))


async def ask(stream: StreamCall, request: Any = LIST) -> Any:
    await stream.write(request)
    return await stream.read()


@asynccontextmanager
async def answered(
    server: Server, method: str, count: int, metadata: Metadata = ()
) -> AsyncIterator[Sequence[StreamCall]]:
    """Open streams, each of which has been answered once."""
    async with AsyncExitStack() as stack:
        streams = []
        for _ in range(count):
            stream = opened(server, method, metadata)
            stack.callback(stream.cancel)
            assert (await ask(stream)).HasField("list_services_response")
            streams.append(stream)
        yield streams


async def test_a_request_of_more_than_4_kb_is_refused(server: Server, method: str) -> None:
    fits, is_too_long = "x" * 4000, "x" * 4096

    async with answered(server, method, 1) as [stream]:
        answer = await ask(
            stream, reflection_pb2.ServerReflectionRequest(file_containing_symbol=fits)
        )
        assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
        refusal = await refused_stream(
            stream, reflection_pb2.ServerReflectionRequest(file_containing_symbol=is_too_long)
        )

    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELDS",
    )
    assert refusal.fields == ["request"]


async def test_a_caller_has_few_streams_and_no_other_caller_waits_for_them(
    make_server: MakeServer, tmp_path: Path, method: str
) -> None:
    async with guarded(make_server, tmp_path) as served:
        server, mallory, alice = served.server, served.as_("mallory"), served.as_("alice")
        async with answered(server, method, OF_ONE_CALLER, mallory):
            for other in METHODS:
                refusal = await refused(_first(opened(server, other, mallory)))
                assert (refusal.code, refusal.reason) == (
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    "TOO_MANY_REQUESTS",
                )
                assert refusal.retry_seconds is not None
            async with answered(server, method, 1, alice):
                pass
        await until(lambda: _is_answered(server, method, mallory))


async def test_all_callers_together_have_few_streams(server: Server, method: str) -> None:
    async with answered(server, method, OF_ALL):
        refusal = await refused(_first(opened(server, method)))

    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "TOO_MANY_REQUESTS",
    )
    await until(lambda: _is_answered(server, method, ()))


async def test_a_request_that_is_far_too_large_counts_as_the_calls_that_it_delays(
    make_server: MakeServer, tmp_path: Path, method: str
) -> None:
    huge = reflection_pb2.ServerReflectionRequest(file_by_filename="f" * 1024 * 1024)
    async with guarded(make_server, tmp_path, calls_at_once=40, calls_per_second=0.01) as served:
        mallory = served.as_("mallory")
        refusals = [
            await refused_stream(opened(served.server, method, mallory), huge) for _ in range(2)
        ]
        async with answered(served.server, method, 1, served.as_("alice")):
            pass

    assert [one.reason for one in refusals] == ["INVALID_FIELDS", "TOO_MANY_REQUESTS"]


async def test_each_request_of_a_stream_counts_as_a_call(
    make_server: MakeServer, tmp_path: Path, method: str
) -> None:
    async with guarded(make_server, tmp_path, calls_at_once=20, calls_per_second=0.01) as served:
        async with answered(served.server, method, 1, served.as_("mallory")) as [stream]:
            for _ in range(19):
                await ask(stream)
            refusal = await refused(ask(stream))

        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "TOO_MANY_REQUESTS",
        )
        async with answered(served.server, method, 1, served.as_("alice")):
            pass


async def test_a_stream_that_asks_nothing_is_closed(make_server: MakeServer, method: str) -> None:
    async with make_server(request_timeout=timedelta(seconds=0.2)) as server:
        async with answered(server, method, 1) as [stream]:
            assert await stream.read() is grpc.aio.EOF
            assert (await stream.status()).code() is grpc.StatusCode.OK
        refusal = await refused(opened(server, method).read())

    assert refusal.reason == "REQUEST_TOO_SLOW"


async def test_a_stream_whose_answers_nobody_reads_ends(
    make_server: MakeServer, method: str
) -> None:
    # gRPC keeps 64 KB of a stream before a write waits.
    request = DESCRIBE.SerializeToString()
    async with (
        make_server(answer_timeout=timedelta(seconds=0.3)) as server,
        Reader.connected(server) as reader,
    ):
        for _ in range(OF_ALL):
            stream = await reader.peer.open_call(reader.target, method)
            await reader.peer.send(frames.message(stream, request, end_stream=False) * 20)

        # gRPC lets go of the last ones when the next calls come.
        await reader.until(lambda: len(reader.ended) >= OF_ALL - 4)

        await until(lambda: _is_answered(server, method, ()))


@pytest.mark.parametrize("name", ["Check", "Watch", "List"])
async def test_a_health_request_of_more_than_4_kb_is_refused(server: Server, name: str) -> None:
    untyped: Any = server.channel
    raw = health_pb2.HealthCheckRequest(service="x" * 4096).SerializeToString()
    path = f"/grpc.health.v1.Health/{name}"
    call = (
        untyped.unary_stream(path)(raw).read()
        if name == "Watch"
        else untyped.unary_unary(path)(raw)
    )

    refusal = await refused(call)

    assert refusal.fields == ["request"]


async def _first(stream: StreamCall) -> Any:
    return await ask(stream)


async def _is_answered(server: Server, method: str, metadata: Metadata) -> bool:
    stream = opened(server, method, metadata)
    try:
        return bool((await ask(stream)).HasField("list_services_response"))
    except grpc.aio.AioRpcError:
        return False
    finally:
        stream.cancel()
