"""Uploaded conversations: from bytes to entries, in pieces that let other calls go on.

protobuf decodes a message in one go, and so much of it as its sender likes. Here the parts of an
upload are found and counted in its bytes, and then decoded one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import ListValue, Value

from tasklogs.log import rfc3339
from tasklogs.log.entry import Entry, EntryType, Time
from tasklogs.log.text import to_utf8
from tasklogs.log.truncation import MAX_CONTENT_BYTES
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1.types_pb2 import TaskLogEntry
from tasklogs_server.concurrency.loop_share import LoopShare
from tasklogs_server.domain.errors import FieldViolation, InvalidFields, LimitExceeded
from tasklogs_server.domain.limits import Limit
from tasklogs_server.domain.upload_limits import MAX_UPLOAD_ENTRIES
from tasklogs_server.services.agent_codec import MAX_ENTRIES, MAX_VIOLATIONS, entry_of
from tasklogs_server.wire.fields import Runs, fields, undecodable, varint

# Tags: field numbers and wire types.
_FORMAT = 0x08  # UploadLogSnapshotRequest.format
_DATA = 0x12  # UploadLogSnapshotRequest.data
_ENTRIES = 0x1A  # UploadLogSnapshotRequest.entries
_PART_ENTRIES = 0x0A  # UploadLogSnapshotInPartsRequest.entries
_PART_LAST = 0x10  # UploadLogSnapshotInPartsRequest.last
_STRUCT_FIELD = 0x0A  # Struct.fields
_KEY, _VALUE = 0x0A, 0x12  # of an entry of a map
_NUMBER, _STRING, _STRUCT, _LIST = 0x11, 0x1A, 0x2A, 0x32  # Value.kind
_LIST_VALUE = 0x0A  # ListValue.values

# Pieces that take about a millisecond: to walk over fields, and to decode and convert them.
_WALKED_FIELDS = 1000
_RUN_FIELDS = 50
_RUN_BYTES = 16 * 1024
# Of a message or of a JSON object of AgentAPI: they have a handful.
_MAX_FIELDS = 100

_ROLES = {"user": EntryType.INPUT, "agent": EntryType.OUTPUT}
_MESSAGE_KEYS = frozenset({b"id", b"role", b"content", b"time"})
_MAX_ID = 2**31 - 1
_TIME_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Part:
    """One message of an upload in parts, whose entries are not decoded yet."""

    encoded: bytes
    runs: Sequence[tuple[int, int]]
    last: bool


class DecodedEntries:
    """The entries of an uploaded conversation. Those before them have ids up to `after_id`."""

    def __init__(self, *, after_id: int = -1) -> None:
        self.entries: list[Entry] = []
        self._after_id = after_id
        self._index = 0
        self._violations: list[FieldViolation] = []

    def add(self, messages: Iterable[TaskLogEntry]) -> None:
        """Decode further entries.

        Raises InvalidFields after many bad fields, and Unsupported. Raises LimitExceeded for an
        entry that is too long: its sender must drop the front.
        """
        for message in messages:
            path, violations = f"entries[{self._index}]", self._violations
            entry = entry_of(message, path, violations)
            if message.HasField("id") and 0 <= entry.id <= self._after_id:
                violations.append(FieldViolation(f"{path}.id", "ids must grow"))
            if len(violations) >= MAX_VIOLATIONS:
                self.check()
            if len(entry.content) > MAX_CONTENT_BYTES:
                subject, most = f"entry {entry.id}", f"at most {MAX_CONTENT_BYTES} bytes"
                raise LimitExceeded(Limit.ENTRY_BYTES, subject, most, None)
            self._after_id = entry.id
            self._index += 1
            self.entries.append(entry)

    def take(self) -> Sequence[Entry]:
        """Return the entries since the last call. Raises InvalidFields, which names the fields."""
        self.check()
        taken, self.entries = self.entries, []
        return taken

    def check(self) -> None:
        """Raise InvalidFields if a field was bad. It names the first ones."""
        if self._violations:
            raise InvalidFields(self._violations)


async def snapshot_entries(encoded: bytes, share: LoopShare) -> list[Entry]:
    """Decode an UploadLogSnapshotRequest.

    Raises InvalidFields, which names the first fields, LimitExceeded and Unsupported.
    """
    try:
        request = await _outline(encoded, share)
        match request.format:
            case pb.SNAPSHOT_FORMAT_AGENTAPI:
                if request.entries.fields:
                    wrong = FieldViolation("entries", "not with SNAPSHOT_FORMAT_AGENTAPI")
                    raise InvalidFields([wrong])
                return await _agentapi_entries(encoded, request.data, share)
            case pb.SNAPSHOT_FORMAT_ENTRIES:
                if request.data:
                    wrong = FieldViolation("data", "not with SNAPSHOT_FORMAT_ENTRIES")
                    raise InvalidFields([wrong])
                return await _entries(encoded, request.entries, share)
            case _:
                wanted = "must be SNAPSHOT_FORMAT_AGENTAPI or SNAPSHOT_FORMAT_ENTRIES"
                raise InvalidFields([FieldViolation("format", wanted)])
    except DecodeError:
        raise undecodable() from None


async def part_of(encoded: bytes, share: LoopShare) -> Part:
    """Find the entries of an UploadLogSnapshotInPartsRequest.

    Raises InvalidFields, and LimitExceeded: more entries than a conversation may have.
    """
    runs, last = _runs(), False
    try:
        async for walked in share.take(fields(encoded, 0, len(encoded)), _WALKED_FIELDS):
            for one in walked:
                if one[0] == _PART_ENTRIES:
                    runs.add(one)
                elif one[0] == _PART_LAST:
                    last = varint(encoded, one[2])[0] != 0
            _count(runs, MAX_UPLOAD_ENTRIES)
    except DecodeError:
        raise undecodable() from None
    return Part(encoded, runs.all, last)


def decode_run(part: Part, run: tuple[int, int], entries: DecodedEntries) -> None:
    """Decode one of the part's runs of entries, and add it. Raises what `entries.add` raises."""
    begin, end = run
    try:
        message = pb.UploadLogSnapshotInPartsRequest.FromString(part.encoded[begin:end])
    except DecodeError:
        raise undecodable() from None
    entries.add(message.entries)


@dataclass(slots=True)
class _Outline:
    """What an UploadLogSnapshotRequest has: where its `data` are, and runs of its entries."""

    format: int = 0
    data: list[tuple[int, int]] = field(default_factory=list)
    """Several are merged, as protobuf does it."""
    entries: Runs = field(default_factory=lambda: _runs())
    others: int = 0


async def _outline(encoded: bytes, share: LoopShare) -> _Outline:
    outline = _Outline()
    async for walked in share.take(fields(encoded, 0, len(encoded)), _WALKED_FIELDS):
        for one in walked:
            tag, _, begin, end = one
            if tag == _ENTRIES:
                outline.entries.add(one)
                continue
            outline.others += 1
            if tag == _DATA:
                outline.data.append((begin, end))
            elif tag == _FORMAT:
                outline.format, _ = varint(encoded, begin)
        _count(outline.entries, MAX_ENTRIES)
        _few(outline.others, "request")
    return outline


async def _entries(encoded: bytes, runs: Runs, share: LoopShare) -> list[Entry]:
    decoded = DecodedEntries()

    def decode(run: tuple[int, int]) -> None:
        begin, end = run
        decoded.add(pb.UploadLogSnapshotRequest.FromString(encoded[begin:end]).entries)

    for run in runs.all:
        await share.run(partial(decode, run))
    decoded.check()
    return decoded.entries


async def _agentapi_entries(
    encoded: bytes, data: Sequence[tuple[int, int]], share: LoopShare
) -> list[Entry]:
    listed = _list_of_messages(encoded, data)
    runs = _runs()
    async for walked in share.take(fields(encoded, *listed), _WALKED_FIELDS):
        for one in walked:
            if one[0] == _LIST_VALUE:
                runs.add(one)
        _count(runs, MAX_ENTRIES)
    messages = _Messages()

    def decode(run: tuple[int, int]) -> None:
        messages.add(_values(encoded, *run))

    for run in runs.all:
        await share.run(partial(decode, run))
    messages.check()
    return messages.entries


def _list_of_messages(encoded: bytes, data: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return where the list `data.messages` is. Of equal keys the last one counts."""
    found: tuple[int, int] | None = None
    count = 0
    for begin, end in data:
        for tag, _, entry_begin, entry_end in fields(encoded, begin, end):
            count += 1
            _few(count, "data")
            if tag == _STRUCT_FIELD:
                key, value = _key_and_value(encoded, entry_begin, entry_end)
                if key == b"messages":
                    found = value
    only = None if found is None else _only_field(encoded, *found)
    if only is None or only[0] != _LIST:
        raise InvalidFields([FieldViolation("data.messages", "must be a list of messages")])
    return only[2], only[3]


def _key_and_value(encoded: bytes, begin: int, end: int) -> tuple[bytes, tuple[int, int]]:
    """Return the key of a map's entry, and where its value is."""
    key, value = b"", (end, end)
    found = list(islice(fields(encoded, begin, end), 3))
    if len(found) == 3:
        raise DecodeError("an entry of a map has a key and a value")
    for tag, _, at, until in found:
        if tag == _KEY:
            key = encoded[at:until]
        elif tag == _VALUE:
            value = (at, until)
    return key, value


def _only_field(encoded: bytes, begin: int, end: int) -> tuple[int, int, int, int] | None:
    found = list(islice(fields(encoded, begin, end), 2))
    return found[0] if len(found) == 1 else None


def _values(encoded: bytes, begin: int, end: int) -> Iterable[Value]:
    """Decode a run of a list's values. A large one is decoded without what the server ignores."""
    if end - begin <= _RUN_BYTES:
        return ListValue.FromString(encoded[begin:end]).values
    [(_, _, at, until)] = fields(encoded, begin, end)
    return [_large_message(encoded, at, until)]


def _large_message(encoded: bytes, begin: int, end: int) -> Value:
    """Decode the four fields of a message, if they are text or numbers."""
    message = Value()
    only = _only_field(encoded, begin, end)
    if only is None or only[0] != _STRUCT:
        return message
    known = message.struct_value.fields
    for count, (tag, _, at, until) in enumerate(fields(encoded, only[2], only[3])):
        _few(count, "data.messages")
        if tag != _STRUCT_FIELD:
            continue
        key, value = _key_and_value(encoded, at, until)
        if key in _MESSAGE_KEYS:
            scalar = _only_field(encoded, *value)
            is_scalar = scalar is not None and scalar[0] in (_NUMBER, _STRING)
            kept = encoded[value[0] : value[1]] if is_scalar else b""
            known[key.decode()].CopyFrom(Value.FromString(kept))
    return message


class _Messages:
    """The entries that the messages of AgentAPI are."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._index = 0
        self._violations: list[FieldViolation] = []

    def add(self, items: Iterable[Value]) -> None:
        for item in items:
            if len(self._violations) >= MAX_VIOLATIONS:
                self.check()
            path = f"data.messages[{self._index}]"
            self._index += 1
            entry = _message(item, path, self._violations)
            if entry is None:
                continue
            if self.entries and entry.id <= self.entries[-1].id:
                self._violations.append(FieldViolation(f"{path}.id", "ids must grow"))
            self.entries.append(entry)

    def check(self) -> None:
        if self._violations:
            raise InvalidFields(self._violations)


def _runs() -> Runs:
    return Runs(fields=_RUN_FIELDS, size_bytes=_RUN_BYTES)


def _count(runs: Runs, at_most: int) -> None:
    if runs.fields > at_most:
        most = f"at most {at_most} entries"
        raise LimitExceeded(Limit.APPEND_ENTRIES, "upload", most, None)


def _few(count: int, path: str) -> None:
    if count > _MAX_FIELDS:
        raise InvalidFields([FieldViolation(path, f"must have at most {_MAX_FIELDS} fields")])


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
