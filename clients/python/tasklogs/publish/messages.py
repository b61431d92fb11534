"""Converts between the agent's values and the messages of the agent stream."""

from __future__ import annotations

from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tasklogs import compression, delta_codec
from tasklogs.log.append import Append
from tasklogs.log.continuation import Position, StoredTail
from tasklogs.log.entry import Entry, Names, Time
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import types_pb2

_MAX_INT32 = 2**31 - 1


class ProtocolError(Exception):
    """The server sent what the protocol does not allow. `str()` is one line."""


def position(welcome: pb.Welcome) -> Position:
    """Return the position of the stored log. Raises ProtocolError."""
    tail = _stored_tail(welcome.tail) if welcome.HasField("tail") else None
    least = 0 if tail is None else 1
    if welcome.epoch < 0 or welcome.entries < least or (welcome.entries and not welcome.epoch):
        raise ProtocolError("Welcome has impossible numbers")
    return Position(welcome.epoch, welcome.entries, welcome.digest or bytes(32), tail)


def wait_of(duration: Duration) -> timedelta:
    """Return how long the server asks to wait. Raises ProtocolError."""
    try:
        return duration.ToTimedelta()
    except (ValueError, OverflowError):
        raise ProtocolError("an impossible length of time") from None


def log_append(append: Append) -> pb.AgentMessage:
    """Return `append` as a message of the stream."""
    message = pb.LogAppend(
        sequence=append.sequence,
        open_epoch=append.open_epoch,
        withdraw_tail=append.withdraw_tail,
        entries=[_entry(entry) for entry in append.entries],
        waited_ms=min(int(append.waited_seconds * 1000), _MAX_INT32),
    )
    if append.tail is not None:
        message.tail.id = append.tail.id
        message.tail.time.CopyFrom(_timestamp(append.tail.time))
        message.tail.content.CopyFrom(delta_codec.encode(append.tail.delta, append.tail.crc32))
    return pb.AgentMessage(append=message)


def shortened(message: pb.AgentMessage) -> pb.AgentMessage:
    """Return `message` compressed, if that makes it much shorter."""
    if message.ByteSize() < compression.LEAST_BYTES:
        return message
    short = compression.compressed(message.SerializeToString())
    return message if short is None else pb.AgentMessage(compressed=short)


def _stored_tail(tail: pb.Welcome.Tail) -> StoredTail:
    if tail.id < 0 or tail.content_bytes < 0 or tail.dropped_bytes < 0:
        raise ProtocolError("Welcome has impossible numbers")
    if tail.type == types_pb2.TASK_LOG_TYPE_UNSPECIFIED:
        raise ProtocolError("Welcome has an entry without a type")
    return StoredTail(
        tail.id,
        tail.type,  # also one of a later version: no entry that the agent shows has it
        Time(tail.time.seconds, tail.time.nanos),
        tail.content_bytes,
        tail.content_sha256,
        tail.dropped_bytes,
        Names(tail.source_id, tail.name, tail.call_id),
    )


def _entry(entry: Entry) -> types_pb2.TaskLogEntry:
    return types_pb2.TaskLogEntry(
        id=entry.id,
        type=types_pb2.TaskLogType.ValueType(entry.type),
        time=_timestamp(entry.time),
        dropped_bytes=entry.dropped_bytes,
        source_id=entry.names.source_id,
        name=entry.names.name,
        call_id=entry.names.call_id,
        content=entry.content.decode(),
    )


def _timestamp(time: Time) -> Timestamp:
    return Timestamp(seconds=time.seconds, nanos=time.nanos)
