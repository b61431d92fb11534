"""A scripted TaskAgents server: the peer of the agent's stream, with a reference store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tasklogs.compression import expanded
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import types_pb2
from tasklogs.v1.task_agents_pb2_grpc import (
    TaskAgentsServicer,
    add_TaskAgentsServicer_to_server,
)
from tests.support.fakes.reference_store import ReferenceStore
from tests.support.fixtures.conditions import DEADLINE_SECONDS


@dataclass
class Refusal:
    """How a stream ends."""

    code: grpc.StatusCode
    info: str = ""
    retry_after_seconds: float | None = None
    message: str = "scripted"

    def status(self) -> Any:
        details = []
        if self.info:
            packed = AnyMessage()
            packed.Pack(error_details_pb2.ErrorInfo(reason=self.info, domain="tasklogs.v1"))
            details.append(packed)
        if self.retry_after_seconds is not None:
            delay = Duration()
            delay.FromNanoseconds(int(self.retry_after_seconds * 1e9))
            packed = AnyMessage()
            packed.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
            details.append(packed)
        code = self.code.value[0]
        return rpc_status.to_status(
            status_pb2.Status(code=code, message=self.message, details=details)
        )


@dataclass
class FakeSession:
    """One stream, as the server sees it."""

    hello: pb.Hello
    metadata: dict[str, str]
    messages: list[pb.AgentMessage] = field(default_factory=list)
    appended_bytes: int = 0
    received_bytes: int = 0
    compressed: int = 0
    """How many messages came compressed. `messages` has what was inside."""
    is_over: bool = False
    _out: asyncio.Queue[pb.ServerMessage | Refusal] = field(default_factory=asyncio.Queue)

    @property
    def appends(self) -> list[pb.LogAppend]:
        return [message.append for message in self.messages if message.HasField("append")]

    @property
    def health(self) -> types_pb2.AppHealth.ValueType | None:
        states = [message.state for message in self.messages if message.HasField("state")]
        return states[-1].app_health if states else None

    @property
    def said_goodbye(self) -> bool:
        return any(message.HasField("goodbye") for message in self.messages)

    def send(self, message: pb.ServerMessage) -> None:
        self._out.put_nowait(message)

    def end(self, refusal: Refusal) -> None:
        self._out.put_nowait(refusal)

    def ack(self, sequence: int) -> None:
        self.send(pb.ServerMessage(ack=pb.Ack(sequence=sequence)))

    async def sync(self, sync_id: int, timeout: float = DEADLINE_SECONDS) -> pb.AgentMessage:
        """Ask for a sync. Return SyncDone or SyncFailed."""
        assert sync_id, "every message that is no answer has the id 0"
        self.send(pb.ServerMessage(sync=pb.Sync(id=sync_id)))
        return await self.answer(sync_id, timeout)

    async def answer(self, sync_id: int, timeout: float = DEADLINE_SECONDS) -> pb.AgentMessage:
        async with asyncio.timeout(timeout):
            while True:
                for message in self.messages:
                    if sync_id in (message.sync_done.id, message.sync_failed.id):
                        return message
                await asyncio.sleep(0.002)

    async def next_out(self) -> pb.ServerMessage | Refusal:
        return await self._out.get()


class FakeServer(TaskAgentsServicer):
    """Listens on loopback. `stop` and `start` restart the server on the same port and
    store."""

    def __init__(self, store: ReferenceStore | None = None) -> None:
        self.store = store or ReferenceStore()
        self.sessions: list[FakeSession] = []
        self.refusals: list[Refusal] = []
        self.acknowledges = True
        self.append_bytes = 262_144
        self.stream_bytes: int | None = None
        """Resets a stream that sends more, as a proxy does that limits the size of a request."""
        self.is_mute = False
        self.hellos = 0
        self.failures: list[BaseException] = []
        self._server: grpc.aio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        assert not self.failures, self.failures

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        options = [
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 50),
            ("grpc.http2.max_ping_strikes", 0),
        ]
        self._server = grpc.aio.server(options=options)
        add_TaskAgentsServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            await self._server.wait_for_termination()
            self._server = None

    async def session(self, number: int = 1, timeout: float = DEADLINE_SECONDS) -> FakeSession:
        """Wait for the stream with this number. Streams count from 1."""
        async with asyncio.timeout(timeout):
            while len(self.sessions) < number:  # noqa: ASYNC110
                await asyncio.sleep(0.002)
        return self.sessions[number - 1]

    # The stubs know only generator methods.
    async def Connect(  # type: ignore[override]
        self, request_iterator: AsyncIterator[pb.AgentMessage], context: Any
    ) -> None:
        if self.refusals:
            await context.abort_with_status(self.refusals.pop(0).status())
        hello = await context.read()
        self.hellos += 1
        if self.is_mute:
            await asyncio.Event().wait()
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        session = FakeSession(hello.hello, metadata)
        welcome = self.store.welcome(session=len(self.sessions) + 1, append_bytes=self.append_bytes)
        await context.write(pb.ServerMessage(welcome=welcome))
        self.sessions.append(session)
        reading = asyncio.create_task(self._read(session, context))
        try:
            await self._write(session, context, reading)
        finally:
            session.is_over = True
            reading.cancel()
            await asyncio.wait({reading})

    async def UploadLogSnapshot(
        self, request: pb.UploadLogSnapshotRequest, context: Any
    ) -> pb.UploadLogSnapshotResponse:
        raise NotImplementedError

    async def UploadLogSnapshotInParts(
        self, requests: AsyncIterator[pb.UploadLogSnapshotInPartsRequest], context: Any
    ) -> pb.UploadLogSnapshotInPartsResponse:
        raise NotImplementedError

    async def _read(self, session: FakeSession, context: Any) -> None:
        sequence = 0
        while (message := await context.read()) is not grpc.aio.EOF:
            session.received_bytes += message.ByteSize()
            if self.stream_bytes is not None and session.received_bytes > self.stream_bytes:
                session.end(Refusal(grpc.StatusCode.INTERNAL, message="RST_STREAM"))
                await asyncio.Event().wait()
            size_bytes = message.ByteSize()
            if message.HasField("compressed"):
                session.compressed += 1
                message = pb.AgentMessage.FromString(expanded(message.compressed))
            if message.HasField("append"):
                session.appended_bytes += size_bytes
                sequence += 1
                try:
                    assert message.append.sequence == sequence, "sequence"
                    self.store.apply(message.append)
                except (AssertionError, ValueError) as error:
                    self.failures.append(error)
                    raise
                if self.acknowledges:
                    session.ack(sequence)
            session.messages.append(message)
            if message.HasField("goodbye"):
                return

    async def _write(self, session: FakeSession, context: Any, reading: asyncio.Task[None]) -> None:
        while not reading.done():
            out = asyncio.ensure_future(session.next_out())
            try:
                await asyncio.wait({out, reading}, return_when=asyncio.FIRST_COMPLETED)
                if not out.done():
                    return
                result = out.result()
            finally:
                if not out.done():
                    out.cancel()
                    await asyncio.wait({out})
            if isinstance(result, Refusal):
                if result.code is grpc.StatusCode.OK:
                    return
                await context.abort_with_status(result.status())
            await context.write(result)
