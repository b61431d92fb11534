"""An agent of tomorrow on a real agent stream: it sends messages of tomorrow, byte for byte."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import grpc
import grpc.aio

from tasklogs.errors import TaskLogsRpcError
from tasklogs.publish.stream_status import StreamCall
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import task_logs_pb2, types_pb2
from tests.compat import tomorrow
from tests.support.fixtures.agent_stream import Ended, log_entry
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.server import Server

FEATURES = ["content_delta_pieces", "entry_names", "a_feature_of_tomorrow"]


class AgentOfTomorrow:
    """A stream after its Welcome. `welcome` is as a peer of today reads it."""

    def __init__(self, call: StreamCall) -> None:
        self._call = call
        self.welcome = pb.Welcome()
        self.acked = 0
        """The sequence number of the last append that is acknowledged."""

    @classmethod
    @asynccontextmanager
    async def connect(cls, server: Server, token: str) -> AsyncIterator[Self]:
        """Connect with a Hello of tomorrow, and read the Welcome."""
        connect: grpc.aio.StreamStreamMultiCallable[Any, Any] = server.channel.stream_stream(
            "/tasklogs.v1.TaskAgents/Connect",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=pb.ServerMessage.FromString,
        )
        call = StreamCall(connect(metadata=(("authorization", f"Bearer {token}"),)))
        agent = cls(call)
        try:
            hello = pb.Hello(agent_version="9.0", task_app="tomorrow", features=FEATURES)
            await agent.send(hello=tomorrow.grown(hello))
            first = await agent._read()
            assert first is not None
            agent.welcome.CopyFrom(first.welcome)
            yield agent
        finally:
            call.cancel()

    async def send(self, **case: Any) -> None:
        """Send an AgentMessage of tomorrow with this case."""
        await self._call.write(tomorrow.make("AgentMessage", tomorrow="new", **case))

    async def send_compressed(self, **case: Any) -> None:
        """Send the same message compressed."""
        inside = tomorrow.make("AgentMessage", tomorrow="new", **case).SerializeToString()
        compressed = types_pb2.CompressedMessage(zlib=zlib.compress(inside), size_bytes=len(inside))
        await self.send(compressed=tomorrow.grown(compressed))

    async def append(self, append: pb.LogAppend) -> None:
        """Send an append that is known today, with new fields in all of its messages."""
        await self.send(append=tomorrow.grown(append))

    async def until_acked(self, sequence: int) -> None:
        """Read until this append is acknowledged. Fails if the stream ends."""
        while self.acked < sequence:
            message = await self._read()
            assert message is not None, "the stream ended"
            if message.HasField("ack"):
                self.acked = message.ack.sequence

    async def ended(self) -> Ended:
        """Read to the end of the stream. Return how it ended."""
        try:
            while (message := await self._read()) is not None:
                if message.HasField("ack"):
                    self.acked = message.ack.sequence
            status = await self._call.status()
        except grpc.aio.AioRpcError as error:
            status = error
        parsed = TaskLogsRpcError.from_rpc_error(status)
        return Ended(status.code(), parsed.reason, parsed.message)

    async def _read(self) -> pb.ServerMessage | None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            message = await self._call.read()
        return message if isinstance(message, pb.ServerMessage) else None


def conversation(*contents: str) -> pb.LogAppend:
    """Return the first append of a task: entries with ids from 0, user and agent in turn."""
    kinds = (types_pb2.TASK_LOG_TYPE_INPUT, types_pb2.TASK_LOG_TYPE_OUTPUT)
    entries = [
        log_entry(number, content, type_=kinds[number % 2])
        for number, content in enumerate(contents)
    ]
    return pb.LogAppend(sequence=1, open_epoch=True, entries=entries)


async def stored(server: Server, task: str = "local/demo") -> list[str]:
    """Return the stored contents of the current epoch."""
    request = task_logs_pb2.GetTaskLogsRequest(task=task, source=task_logs_pb2.LOG_SOURCE_SNAPSHOT)
    answer = await server.logs.GetTaskLogs(request)
    return [entry.content for entry in answer.logs]
