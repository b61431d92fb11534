"""A server that breaks the protocol of the agent stream: the agent logs it and dials again."""

from __future__ import annotations

import asyncio
import gzip
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from structlog.testing import capture_logs

from tasklogs.agent.run import Agent, Options
from tasklogs.publish.reconnect import Backoff, StreamEnded
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1.types_pb2 import TASK_LOG_TYPE_INPUT
from tests.agent.conftest import FAST, until
from tests.support.fakes.task_app import FakeTaskApp

TAIL = pb.Welcome.Tail(
    id=0, type=TASK_LOG_TYPE_INPUT, time=Timestamp(seconds=1), content_sha256=bytes(32)
)
WELCOME = pb.ServerMessage(welcome=pb.Welcome(session=1))
MIB = 1024 * 1024


def welcome(**fields: Any) -> list[pb.ServerMessage]:
    return [pb.ServerMessage(welcome=pb.Welcome(session=1, **fields))]


def tail(**fields: Any) -> pb.Welcome.Tail:
    changed = pb.Welcome.Tail()
    changed.CopyFrom(TAIL)
    changed.MergeFrom(pb.Welcome.Tail(**fields))
    return changed


class Hostile:
    """Sends each stream the same messages, whatever it receives, and keeps it open."""

    def __init__(
        self, messages: Sequence[pb.ServerMessage | bytes], compression: grpc.Compression | None
    ) -> None:
        self._messages = messages
        self._compression = compression
        self.streams = 0
        self.address = ""

    async def connect(self, _: object, context: Any) -> None:
        self.streams += 1
        if self._compression is not None:
            context.set_compression(self._compression)
        for message in self._messages:
            await context.write(message)
        await asyncio.Event().wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Hostile]:
        server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
        handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
            self.connect, response_serializer=_serialize
        )
        handlers = {"Connect": handler}
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("tasklogs.v1.TaskAgents", handlers)]
        )
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        try:
            yield self
        finally:
            await server.stop(None)


def _serialize(message: pb.ServerMessage | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


async def ends(
    app: FakeTaskApp,
    messages: Sequence[pb.ServerMessage | bytes],
    compression: grpc.Compression | None = None,
) -> list[Any]:
    """Connect an agent to that server twice; return its log events of the two ends."""

    def said() -> list[Any]:
        return [one for one in logged if one["event"] == "stream.ended"]

    app.become_ready()
    app.say("user", "hello")
    with capture_logs() as logged:
        async with Hostile(messages, compression).running() as hostile:
            agent = Agent(Options(hostile.address, "a-token", app.url), FAST)
            running = asyncio.create_task(agent.run())
            try:
                await until(lambda: len(said()) >= 2 or running.done())
                assert not running.done(), running.exception()
            finally:
                running.cancel()
                await asyncio.wait({running})
    return said()


@pytest.mark.parametrize(
    "messages",
    [
        [pb.ServerMessage(welcome=pb.Welcome(epoch=1, entries=1, tail=pb.Welcome.Tail()))],
        welcome(epoch=1, entries=1, tail=tail(id=-1)),
        welcome(epoch=1, entries=1, tail=tail(content_bytes=-1)),
        welcome(epoch=1, entries=1, tail=tail(dropped_bytes=-1)),
        welcome(epoch=1, entries=0, tail=TAIL),
        welcome(epoch=1, entries=-1),
        welcome(epoch=-1),
        welcome(epoch=0, entries=3),
        [pb.ServerMessage()],
        [pb.ServerMessage(ack=pb.Ack(sequence=1))],
        [b"\xff\xff\xff"],
        [WELCOME, b"\x0a\xff"],
        [WELCOME, pb.ServerMessage(ack=pb.Ack(sequence=2**63 - 1))],
        [WELCOME, pb.ServerMessage(ack=pb.Ack(sequence=-1))],
        [WELCOME, pb.ServerMessage(drain=pb.Drain(retry_after=Duration(seconds=2**63 - 1)))],
        [WELCOME, pb.ServerMessage(drain=pb.Drain(retry_after=Duration(seconds=-(2**63))))],
    ],
    ids=lambda messages: repr(messages[-1])[:60].replace("\n", " "),
)
async def test_a_protocol_error_ends_the_stream_and_not_the_agent(
    app: FakeTaskApp, messages: list[pb.ServerMessage | bytes]
) -> None:
    assert {one["code"] for one in await ends(app, messages)} == {"INTERNAL"}


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_a_message_is_refused_before_it_expands_beyond_the_limit(
    app: FakeTaskApp, compression: grpc.Compression
) -> None:
    bomb = bytes(64 * MIB)
    assert len(gzip.compress(bomb)) < MIB
    ended = await ends(app, [WELCOME, bomb], compression)
    assert {one["code"] for one in ended} == {"RESOURCE_EXHAUSTED"}


@pytest.mark.parametrize("asked", [1e9, 1e300, float("inf")])
def test_an_agent_waits_at_most_an_hour_and_a_half(asked: float) -> None:
    ended = StreamEnded(grpc.StatusCode.UNAVAILABLE, "", retry_after_seconds=asked)
    assert 3600 <= Backoff(FAST, random.Random(1)).wait_seconds(ended) <= 5400


async def test_too_many_syncs_end_the_stream(app: FakeTaskApp) -> None:
    flood = [pb.ServerMessage(sync=pb.Sync(id=number)) for number in range(300)]
    async with app.handling_post():  # no sync is answered during it
        ended = await ends(app, [WELCOME, *flood])
    assert {one["code"] for one in ended} == {"INTERNAL"}
