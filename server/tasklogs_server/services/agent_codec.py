"""The messages of the agent stream: from protobuf to plain data, and back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import assert_never

from google.protobuf.struct_pb2 import Value

from tasklogs.features import AGENT_STREAM
from tasklogs.log import rfc3339
from tasklogs.log.append import Append, TailChange
from tasklogs.log.delta import Delta
from tasklogs.log.entry import MAX_NAME_BYTES, NO_NAMES, Entry, EntryType, Names, Time
from tasklogs.log.text import to_utf8
from tasklogs.log.truncation import MAX_CONTENT_BYTES
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
_ROLES = {"user": EntryType.INPUT, "agent": EntryType.OUTPUT}
_MAX_ID = 2**31 - 1
_TIME_CHARACTERS = 64
# A message of 4 MiB can hold two million empty entries, with three violations each. To handle them
# would take 2 GB and half a minute, in which no other call is served. No agent sends so many.
MAX_ENTRIES = 50_000
# They take a millisecond.
_AT_ONCE = 150
_MAX_VIOLATIONS = 20


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
    count = len(message.entries)
    if count <= _AT_ONCE:
        return append_at_once(message)
    decoded = _DecodedAppend(message)
    for first in range(0, count, _AT_ONCE):
        await share.run(partial(decoded.add, first, first + _AT_ONCE))
    return decoded.whole()


def append_at_once(message: pb.LogAppend) -> Append:
    """Do the same in one go."""
    decoded = _DecodedAppend(message)
    decoded.add(0, len(message.entries))
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

    def add(self, first: int, end: int) -> None:
        """Decode these entries. Raises Unsupported, and InvalidFields after many bad fields."""
        for entry in self._message.entries[first:end]:
            self._entries.append(_entry(entry, "append.entries", self._violations))
            if len(self._violations) >= _MAX_VIOLATIONS:
                raise InvalidFields(self._violations)

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


def snapshot_entries(request: pb.UploadLogSnapshotRequest) -> list[Entry]:
    """Decode an uploaded conversation.

    Raises InvalidFields, which names the first fields, LimitExceeded and Unsupported.
    """
    match request.format:
        case pb.SNAPSHOT_FORMAT_AGENTAPI:
            if request.entries:
                wrong = FieldViolation("entries", "not with SNAPSHOT_FORMAT_AGENTAPI")
                raise InvalidFields([wrong])
            return _agentapi_entries(request)
        case pb.SNAPSHOT_FORMAT_ENTRIES:
            if request.HasField("data"):
                raise InvalidFields([FieldViolation("data", "not with SNAPSHOT_FORMAT_ENTRIES")])
            if len(request.entries) > MAX_ENTRIES:
                most = f"at most {MAX_ENTRIES} entries"
                raise LimitExceeded(Limit.APPEND_ENTRIES, "upload", most, None)
            return uploaded_entries(request.entries)
        case _:
            wanted = "must be SNAPSHOT_FORMAT_AGENTAPI or SNAPSHOT_FORMAT_ENTRIES"
            raise InvalidFields([FieldViolation("format", wanted)])


def uploaded_entries(
    messages: Sequence[types.TaskLogEntry], *, first_index: int = 0, after_id: int = -1
) -> list[Entry]:
    """Decode entries of an uploaded conversation. Those before them have ids up to `after_id`.

    Raises InvalidFields, which names the first fields, and Unsupported. Raises LimitExceeded for an
    entry that is too long: its sender must drop the front.
    """
    violations: list[FieldViolation] = []
    entries: list[Entry] = []
    for index, message in enumerate(messages, start=first_index):
        entry = _entry(message, f"entries[{index}]", violations)
        if message.HasField("id") and 0 <= entry.id <= after_id:
            violations.append(FieldViolation(f"entries[{index}].id", "ids must grow"))
        if len(violations) >= _MAX_VIOLATIONS:
            break
        if len(entry.content) > MAX_CONTENT_BYTES:
            subject, most = f"entry {entry.id}", f"at most {MAX_CONTENT_BYTES} bytes"
            raise LimitExceeded(Limit.ENTRY_BYTES, subject, most, None)
        after_id = entry.id
        entries.append(entry)
    if violations:
        raise InvalidFields(violations)
    return entries


def _agentapi_entries(request: pb.UploadLogSnapshotRequest) -> list[Entry]:
    listed = request.data.fields.get("messages")
    if listed is None or listed.WhichOneof("kind") != "list_value":
        raise InvalidFields([FieldViolation("data.messages", "must be a list of messages")])
    violations: list[FieldViolation] = []
    entries: list[Entry] = []
    for index, item in enumerate(listed.list_value.values):
        if len(violations) >= _MAX_VIOLATIONS:
            break
        entry = _message(item, f"data.messages[{index}]", violations)
        if entry is None:
            continue
        if entries and entry.id <= entries[-1].id:
            violations.append(FieldViolation(f"data.messages[{index}].id", "ids must grow"))
        entries.append(entry)
    if violations:
        raise InvalidFields(violations)
    return entries


def _entry(message: types.TaskLogEntry, field: str, violations: list[FieldViolation]) -> Entry:
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


def _message(item: Value, field: str, violations: list[FieldViolation]) -> Entry | None:
    if item.WhichOneof("kind") != "struct_value":
        violations.append(FieldViolation(field, "must be a message"))
        return None
    fields = item.struct_value.fields
    id_ = _id(fields.get("id"))
    if id_ is None:
        wanted = f"must be a whole number from 0 to {_MAX_ID}"
        violations.append(FieldViolation(f"{field}.id", wanted))
    content = _text(fields.get("content"))
    if content is None:
        violations.append(FieldViolation(f"{field}.content", "must be a string"))
    type_ = _ROLES.get(_text(fields.get("role")) or "")
    if type_ is None:
        violations.append(FieldViolation(f"{field}.role", "must be user or agent"))
    time = _time(_text(fields.get("time")))
    if time is None:
        violations.append(FieldViolation(f"{field}.time", "must be a time as in RFC 3339"))
    if id_ is None or content is None or type_ is None or time is None:
        return None
    return Entry(id_, type_, time, to_utf8(content))


def _id(value: Value | None) -> int | None:
    if value is None or value.WhichOneof("kind") != "number_value":
        return None
    number = value.number_value
    # NaN fails every comparison, and infinities are out of range.
    return int(number) if 0 <= number <= _MAX_ID and number.is_integer() else None


def _text(value: Value | None) -> str | None:
    if value is None or value.WhichOneof("kind") != "string_value":
        return None
    return value.string_value


def _time(text: str | None) -> Time | None:
    # The parser caches what it has parsed, so long texts must not get there.
    if text is None or len(text) > _TIME_CHARACTERS:
        return None
    try:
        return rfc3339.parse(text)
    except (ValueError, OverflowError):
        return None
