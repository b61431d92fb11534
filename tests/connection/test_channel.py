"""The channel that every client opens."""

from __future__ import annotations

import socket
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from tasklogs.connection.channel import MAX_MESSAGE_BYTES, open_channel
from tasklogs.v1 import task_logs_pb2, task_logs_pb2_grpc, types_pb2
from tests.client.scripted_server import scripted_server
from tests.support.fixtures.server import MakeServer

REQUEST = task_logs_pb2.GetTaskLogsRequest(task="local/demo")


def page_of(content_bytes: int) -> Message:
    return task_logs_pb2.GetTaskLogsResponse(
        logs=[types_pb2.TaskLogEntry(content="x" * content_bytes)]
    )


async def test_a_message_of_almost_4_mib_arrives() -> None:
    async with scripted_server() as server, open_channel(server.address) as channel:
        server.script.append(page_of(MAX_MESSAGE_BYTES - 64))

        page = await task_logs_pb2_grpc.TaskLogsStub(channel).GetTaskLogs(REQUEST)

    assert len(page.logs[0].content) == MAX_MESSAGE_BYTES - 64


async def test_a_larger_message_is_refused() -> None:
    async with scripted_server() as server, open_channel(server.address) as channel:
        server.script.append(page_of(MAX_MESSAGE_BYTES + 1))

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await task_logs_pb2_grpc.TaskLogsStub(channel).GetTaskLogs(REQUEST)

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_proxy_is_not_asked_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed.getsockname()[1]}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("no_grpc_proxy", raising=False)

    async with scripted_server() as server, open_channel(server.address) as channel:
        server.script.append(page_of(1))

        page = await task_logs_pb2_grpc.TaskLogsStub(channel).GetTaskLogs(REQUEST)

    assert page.logs[0].content == "x"


async def test_the_streams_of_one_channel_do_not_block_another(make_server: MakeServer) -> None:
    async with make_server(streams_per_connection=1) as server:
        await server.create_task()
        async with open_channel(server.address) as one, open_channel(server.address) as other:
            request = task_logs_pb2.FollowTaskLogsRequest(task="local/demo")
            follow = task_logs_pb2_grpc.TaskLogsStub(one).FollowTaskLogs(request)
            await follow.read()

            page = await task_logs_pb2_grpc.TaskLogsStub(other).GetTaskLogs(REQUEST, timeout=10)

            assert page.snapshot
            follow.cancel()


async def test_large_metadata_of_a_response_arrives_each_time() -> None:
    """gRPC's own limits would refuse a part of these calls at random."""

    async def answer(_: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        context.set_trailing_metadata((("x-large", "x" * 20_000),))
        return b""

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handlers: dict[str, Any] = {"Get": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("a.B", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with open_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.unary_unary("/a.B/Get")
            for _ in range(100):
                assert await call(b"") == b""
    finally:
        await server.stop(grace=None)
