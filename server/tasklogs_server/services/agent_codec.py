"""The messages of the agent stream: from protobuf to plain data, and back."""

from __future__ import annotations

from typing import assert_never

from tasklogs.features import AGENT_STREAM
from tasklogs.log.append import Append, TailChange
from tasklogs.log.delta import Delta
from tasklogs.log.entry import MAX_NAME_BYTES, NO_NAMES, Entry, EntryType, Names
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import types_pb2 as types
from tasklogs_server.concurrency.loop_share import LoopShare
from tasklogs_server.domain.errors import (
    FieldViolation,
    InvalidFields,
    LimitExceeded,
    ProtocolViolation,
    Unsupported,
)
from tasklogs_server.domain.limits import Limit
from tasklogs_server.ingest import messages
from tasklogs_server.wire.deltas import delta_of
from tasklogs_server.wire.enums import AGENT_LIFECYCLE, APP_HEALTH
from tasklogs_server.wire.times import duration, time_of, timestamp_of

_HELLO_CHARACTERS = 100
# A message of 4 MiB can hold two million empty entries, with three violations each. To handle them
# would take 2 GB and half a minute, in which no other call is served. No agent sends so many.
MAX_ENTRIES = 50_000
# They take a millisecond, and so does an entry of 1 MiB.
_AT_ONCE = 150
_AT_ONCE_BYTES = 256 * 1024
MAX_VIOLATIONS = 20


def hello(message: pb.AgentMessage) -> messages.Hello:
    """Decode the first message. Raises ProtocolViolation if it is not Hello, InvalidFields."""
    if message.WhichOneof("message") != "hello":
        raise ProtocolViolation("the first message must be Hello")
    said = message.hello
    build_number = said.build_number if said.HasField("build_number") else None
    if build_number is not None and build_number < 1:
        raise InvalidFields([FieldViolation("hello.build_number", "builds are numbered from 1")])
    return messages.Hello(
        said.agent_version[:_HELLO_CHARACTERS],
        said.task_app[:_HELLO_CHARACTERS],
        build_number,
    )


async def append(message: pb.LogAppend, share: LoopShare) -> Append:
    """Decode an append, in pieces that let other calls go on.

    Raises InvalidFields, LimitExceeded, Unsupported.
    """
    decoded = _DecodedAppend(message)
    decoded.add_some()
    while not decoded.is_whole:
        await share.run(decoded.add_some)
    return decoded.whole()


def append_at_once(message: pb.LogAppend) -> Append:
    """Do the same in one go."""
    decoded = _DecodedAppend(message)
    while not decoded.is_whole:
        decoded.add_some()
    return decoded.whole()


def check_entries(count: int) -> None:
    """Raise LimitExceeded if these are too many entries for an append."""
    if count > MAX_ENTRIES:
        raise LimitExceeded(Limit.APPEND_ENTRIES, "append", f"at most {MAX_ENTRIES} entries", None)


class _DecodedAppend:
    """What is decoded of an append: at first all but its entries."""

    def __init__(self, message: pb.LogAppend) -> None:
        """Raises LimitExceeded and Unsupported."""
        check_entries(len(message.entries))
        is_opening = message.open_epoch or message.withdraw_tail
        if not (is_opening or message.HasField("tail") or message.entries):
            raise Unsupported("appends without a part that it knows")
        self._message = message
        self._entries: list[Entry] = []
        self._violations: list[FieldViolation] = []
        self._tail = _tail(message.tail, self._violations) if message.HasField("tail") else None

    @property
    def is_whole(self) -> bool:
        """Whether all entries are decoded."""
        return len(self._entries) == len(self._message.entries)

    def add_some(self) -> None:
        """Decode the next entries: as many as take about a millisecond.

        Raises Unsupported, and InvalidFields after many bad fields.
        """
        first = len(self._entries)
        size_bytes = 0
        for entry in self._message.entries[first : first + _AT_ONCE]:
            self._entries.append(entry_of(entry, "append.entries", self._violations))
            if len(self._violations) >= MAX_VIOLATIONS:
                raise InvalidFields(self._violations)
            size_bytes += len(self._entries[-1].content)
            if size_bytes >= _AT_ONCE_BYTES:
                return

    def whole(self) -> Append:
        """Return the append. Raises InvalidFields."""
        if self._violations:
            raise InvalidFields(self._violations)
        message = self._message
        return Append(
            sequence=message.sequence,
            open_epoch=message.open_epoch,
            withdraw_tail=message.withdraw_tail,
            tail=self._tail,
            entries=self._entries,
            waited_seconds=max(0, message.waited_ms) / 1000,
        )


def _tail(message: pb.TailDelta, violations: list[FieldViolation]) -> TailChange:
    if not message.HasField("time"):
        violations.append(FieldViolation("append.tail.time", "is required"))
    return TailChange(
        message.id,
        time_of(message.time, "append.tail.time", violations),
        *_delta(message, violations),
    )


def _delta(message: pb.TailDelta, violations: list[FieldViolation]) -> tuple[Delta, int]:
    match message.WhichOneof("form"):
        case "content":
            return delta_of(message.content, "append.tail.content", violations)
        case None:
            raise Unsupported("the form of this change of the tail (append.tail)")


def state(message: pb.StateReport) -> messages.AgentState:
    """Decode a report of lifecycle and health. Raises InvalidFields."""
    violations: list[FieldViolation] = []
    lifecycle = AGENT_LIFECYCLE.decode(message.lifecycle, "state.lifecycle", violations)
    health = APP_HEALTH.decode(message.app_health, "state.app_health", violations)
    if violations:
        raise InvalidFields(violations)
    return messages.AgentState(lifecycle, health)


def welcome(message: messages.Welcome) -> pb.ServerMessage:
    """Encode what the store holds of the log, for an agent that has just connected."""
    position, limits = message.position, message.limits
    tail = position.tail
    encoded = pb.Welcome(
        session=message.session,
        limits=pb.Welcome.Limits(
            window_bytes=limits.window_bytes,
            append_bytes=limits.append_bytes,
            entry_bytes=limits.entry_bytes,
        ),
        epoch=position.epoch,
        entries=position.entries,
        revision=message.revision,
        digest=position.digest,
        features=AGENT_STREAM,
        entry_types=map(types.TaskLogType.ValueType, EntryType),
    )
    if tail is not None:
        encoded.tail.CopyFrom(
            pb.Welcome.Tail(
                id=tail.id,
                type=types.TaskLogType.ValueType(tail.type),
                time=timestamp_of(tail.time),
                content_bytes=tail.content_bytes,
                content_sha256=tail.content_sha256,
                dropped_bytes=tail.dropped_bytes,
                source_id=tail.names.source_id,
                name=tail.names.name,
                call_id=tail.names.call_id,
            )
        )
    return pb.ServerMessage(welcome=encoded)


def event(message: messages.ServerEvent) -> pb.ServerMessage:
    """Encode what the server says after Welcome."""
    match message:
        case messages.Ack(sequence):
            return pb.ServerMessage(ack=pb.Ack(sequence=sequence))
        case messages.Sync(id_, traceparent):
            return pb.ServerMessage(sync=pb.Sync(id=id_, traceparent=traceparent))
        case messages.ReportState():
            return pb.ServerMessage(report_state=pb.ReportState())
        case messages.Drain(retry_after):
            return pb.ServerMessage(drain=pb.Drain(retry_after=duration(retry_after)))
        case _:
            assert_never(message)


def entry_of(message: types.TaskLogEntry, field: str, violations: list[FieldViolation]) -> Entry:
    """Decode an entry. `field` is the path of its list.

    Raises Unsupported for a type that this server does not know.
    """
    if not message.HasField("id") or message.id < 0:
        violations.append(FieldViolation(f"{field}.id", "is required, from 0"))
    if message.dropped_bytes < 0:
        violations.append(FieldViolation(f"{field}.dropped_bytes", "must not be negative"))
    if not message.HasField("time"):
        violations.append(FieldViolation(f"{field}.time", "is required"))
    return Entry(
        id=message.id,
        type=_type(message.type, field, violations),
        time=time_of(message.time, f"{field}.time", violations),
        content=message.content.encode(),
        dropped_bytes=message.dropped_bytes,
        names=_names(message, field, violations),
    )


def _names(message: types.TaskLogEntry, field: str, violations: list[FieldViolation]) -> Names:
    names = Names(message.source_id, message.name, message.call_id)
    if names == NO_NAMES:
        return NO_NAMES
    for key, text in zip(Names._fields, names, strict=True):
        # No character has fewer than one byte. Most names are short: they need no encoding.
        if len(text) * 4 > MAX_NAME_BYTES and len(text.encode()) > MAX_NAME_BYTES:
            too_long = f"must have at most {MAX_NAME_BYTES} bytes of UTF-8"
            violations.append(FieldViolation(f"{field}.{key}", too_long))
    return names


def _type(number: int, field: str, violations: list[FieldViolation]) -> EntryType:
    if number == types.TASK_LOG_TYPE_UNSPECIFIED:
        violations.append(FieldViolation(f"{field}.type", "is required"))
        return EntryType.OUTPUT
    try:
        return EntryType(number)
    except ValueError:
        raise Unsupported(f"entries of type {number}") from None
