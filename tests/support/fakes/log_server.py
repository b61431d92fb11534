"""A TaskLogs server on a real socket. The test decides its answers and streams.

Each follow plays the next one of `streams`: its messages in order, and between them events of the
stream (Refusal, END, HOLD, or an asyncio.Event to wait for). When none is left, it holds.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto
from typing import TypeAlias

import grpc
import grpc.aio
from google.protobuf import message_factory
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from tasklogs import delta_codec
from tasklogs.log.delta import Delta, DeltaError, apply
from tasklogs.v1 import task_logs_pb2, tasks_pb2, types_pb2
from tests.client.scripted_server import Refusal
from tests.support.fakes.server_info import unscripted_info

Request: TypeAlias = task_logs_pb2.FollowTaskLogsRequest
Response: TypeAlias = task_logs_pb2.FollowTaskLogsResponse
Context: TypeAlias = grpc.aio.ServicerContext[Message, Message]
Play: TypeAlias = Callable[[Request], AsyncIterator["Step"]]


class Fate(Enum):
    """How a stream that was not refused continues."""

    END = auto()
    """It ends normally. A real server of this API never does that."""
    HOLD = auto()
    """It stays open and sends nothing."""


END, HOLD = Fate.END, Fate.HOLD
Raw: TypeAlias = bytes
"""Bytes that travel as a message and need not be a valid one."""
Step: TypeAlias = Response | Raw | Refusal | Fate | asyncio.Event


class LogServer:
    """Plays the answers and streams that a test has set, and records the requests."""

    def __init__(self) -> None:
        self.address = ""
        self.streams: list[Sequence[Step]] = []
        self.compression = grpc.Compression.NoCompression
        self.answers: list[Message | Raw | Refusal | Fate] = []
        """For calls with one answer, in order. HOLD means no answer."""
        self.play: Play | None = None
        """If set, plays each follow instead of `streams`."""
        self.follows: list[Request] = []
        self.requests: list[Message] = []
        self.tokens: list[str | None] = []
        """The `authorization` header of each call."""
        self.metadata: list[dict[str, str | bytes]] = []
        """All metadata of each call."""
        self.called = asyncio.Event()
        """Set at each call with one answer."""
        self.left = asyncio.Event()
        """Set when a caller leaves a stream."""
        self.held = asyncio.Event()
        """Set when a stream has played everything before a HOLD."""

    async def answer(self, request: Message, context: Context) -> Message | Raw:
        info = unscripted_info(request, self.answers)
        if info is not None:
            return info
        self.requests.append(request)
        self.called.set()
        self._note(context)
        answer = self.answers.pop(0)
        match answer:
            case Refusal():
                return await answer.abort(context)
            case Fate():
                return await asyncio.Future()
            case _:
                return answer

    async def follow(self, request: Request, context: Context) -> AsyncIterator[Response | Raw]:
        self.follows.append(request)
        self._note(context)
        if self.play is not None:
            steps = self.play(request)
        else:
            steps = _each(self.streams.pop(0) if self.streams else [HOLD])
        sent = b""
        try:
            async for step in steps:
                match step:
                    case Refusal():
                        await step.abort(context)
                    case asyncio.Event():
                        await step.wait()
                    case Fate.END:
                        return
                    case Fate.HOLD:
                        self.held.set()
                        await asyncio.Future()
                    case bytes():
                        yield step
                    case _:
                        sent = with_checksum(step, sent)
                        yield step
        except (asyncio.CancelledError, GeneratorExit):
            # The cancellation may come at any step, also while a message is being sent.
            self.left.set()
            raise

    def _note(self, context: Context) -> None:
        context.set_compression(self.compression)
        metadata = dict(context.invocation_metadata() or ())
        self.metadata.append(metadata)
        token = metadata.get("authorization")
        self.tokens.append(token.decode() if isinstance(token, bytes) else token)


@asynccontextmanager
async def log_server(port: int = 0) -> AsyncIterator[LogServer]:
    """Serve on loopback, on `port` or on a free one."""
    # SO_REUSEPORT would let a new server share the port with the one before.
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    played = LogServer()
    played.address = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    for service in (
        tasks_pb2.DESCRIPTOR.services_by_name["Tasks"],
        task_logs_pb2.DESCRIPTOR.services_by_name["TaskLogs"],
    ):
        handlers = {}
        for method in service.methods:
            decode = message_factory.GetMessageClass(method.input_type).FromString
            if method.name == "FollowTaskLogs":
                handlers[method.name] = grpc.unary_stream_rpc_method_handler(
                    played.follow, request_deserializer=decode, response_serializer=_encode
                )
            else:
                handlers[method.name] = grpc.unary_unary_rpc_method_handler(
                    played.answer, request_deserializer=decode, response_serializer=_encode
                )
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(service.full_name, handlers)]
        )
    await server.start()
    try:
        yield played
    finally:
        await server.stop(grace=None)


async def _each(steps: Sequence[Step]) -> AsyncIterator[Step]:
    for step in steps:
        yield step


def with_checksum(message: Response, sent: bytes) -> bytes:
    """Add the checksum to a delta that has none. Return the content of the last entry.

    `sent`: the content that the stream sent last. A delta that does not fit gets that of its base.
    """
    if message.entries.logs:
        return message.entries.logs[-1].content.encode()
    if message.delta.WhichOneof("form") != "content":
        return sent
    content = message.delta.content
    with suppress(DeltaError):
        sent = apply(sent, delta_codec.decode(content))
    if not content.HasField("crc32"):
        content.crc32 = zlib.crc32(sent)
    return sent


def _encode(message: Message | Raw) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


def status(cursor: str, value: types_pb2.TaskStatus.ValueType) -> Response:
    """Return the status of the task, without its facts."""
    return Response(cursor=cursor, status=task_logs_pb2.StatusChanged(status=value))


ACTIVE = types_pb2.TASK_STATUS_ACTIVE
PAUSED = types_pb2.TASK_STATUS_PAUSED
ERROR = types_pb2.TASK_STATUS_ERROR


def entry(
    entry_id: int, content: str, revision: int, dropped_bytes: int = 0
) -> types_pb2.TaskLogEntry:
    """Return an entry. Those with even ids are the user's."""
    speakers = (types_pb2.TASK_LOG_TYPE_INPUT, types_pb2.TASK_LOG_TYPE_OUTPUT)
    return types_pb2.TaskLogEntry(
        id=entry_id,
        type=speakers[entry_id % 2],
        time=Timestamp(seconds=1_795_000_000 + entry_id, nanos=123_456_789),
        content=content,
        revision=revision,
        dropped_bytes=dropped_bytes,
    )


def entries(cursor: str, *logs: types_pb2.TaskLogEntry, epoch: int = 1) -> Response:
    """Return whole entries."""
    return Response(cursor=cursor, entries=task_logs_pb2.Entries(logs=logs, epoch=epoch))


def delta(
    cursor: str,
    entry_id: int,
    base: int,
    revision: int,
    keep: int,
    text: str,
    epoch: int = 1,
    *,
    crc32: int | None = None,
) -> Response:
    """Return a change of the tail: `keep` bytes of revision `base`, then `text`.

    Without `crc32` the stream that sends it adds the checksum.
    """
    pieces = Delta.keeping(keep, text.encode())
    return change(cursor, entry_id, base, revision, delta_codec.encode(pieces, crc32), epoch)


def change(
    cursor: str,
    entry_id: int,
    base: int,
    revision: int,
    content: types_pb2.ContentDelta | None,
    epoch: int = 1,
) -> Response:
    """Return any change of the tail. `content` None: in a form that no client knows."""
    return Response(
        cursor=cursor,
        delta=task_logs_pb2.EntryDelta(
            epoch=epoch,
            id=entry_id,
            base_revision=base,
            revision=revision,
            content=content,
        ),
    )


def compressed(event: Response | Raw, *, cursor: str = "", cursor_end: str = "") -> Response:
    """Return `event` as a follow that asked for compressed messages gets it."""
    inside = _encode(event)
    message = Response(cursor=cursor, cursor_end=cursor_end)
    message.compressed.zlib, message.compressed.size_bytes = zlib.compress(inside), len(inside)
    return message


def withdrawn(cursor: str, entry_id: int, revision: int, epoch: int = 1) -> Response:
    """Return the withdrawal of the tail."""
    return Response(
        cursor=cursor,
        entry_withdrawn=task_logs_pb2.EntryWithdrawn(epoch=epoch, id=entry_id, revision=revision),
    )


def epoch_started(cursor: str, epoch: int, revision: int) -> Response:
    """Return the begin of a new epoch."""
    return Response(
        cursor=cursor, epoch_started=task_logs_pb2.EpochStarted(epoch=epoch, revision=revision)
    )


def caught_up(cursor: str) -> Response:
    """Return CaughtUp: everything stored has been sent."""
    return Response(cursor=cursor, caught_up=task_logs_pb2.CaughtUp())


def progress(cursor: str) -> Response:
    """Return a sign of life."""
    return Response(cursor=cursor, progress=task_logs_pb2.Progress())
