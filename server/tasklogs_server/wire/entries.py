"""The stored form of an entry: it is encoded once, in the form in which readers get it.

`head || content` is the field `logs` of `tasklogs.v1.GetTaskLogsResponse` and of a follow's
`Entries`: the field's tag and length, the small fields of the `TaskLogEntry`, then the tag and
length of its `content`. So a read only joins bytes. tests/wire/test_entries.py compares this with
the stubs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, cast

from tasklogs.log.entry import NO_NAMES, Names, Time
from tasklogs.v1.types_pb2 import TaskLogEntry

if TYPE_CHECKING:
    from tasklogs.v1.types_pb2 import TaskLogType

# Field numbers and wire types, as protobuf puts them in front of a value.
_LOGS = 0x0A  # field 1, length-delimited
_ID = 0x08  # field 1, varint
_TYPE = 0x10  # field 2, varint
_REVISION = 0x20  # field 4, varint
_CONTENT = 0x7A  # field 15, length-delimited
_LENGTH_DELIMITED = 2  # wire type: the lowest three bits of a tag


class EncodedEntry(NamedTuple):
    """An encoded entry with its tag and length, and what its first fields say."""

    id: int
    type: int
    revision: int
    encoded: bytes


def split_entries(encoded: bytes) -> Iterator[EncodedEntry]:
    """Yield the entries of an encoded field `logs`, as encode_head began them."""
    start = 0
    while start < len(encoded):
        length, at = _varint(encoded, start + 1)
        end = at + length
        values = {_ID: 0, _TYPE: 0, _REVISION: 0}
        tag = 0
        while tag != _REVISION:
            tag = encoded[at]
            value, at = _varint(encoded, at + 1)
            if tag & 7 == _LENGTH_DELIMITED:
                at += value
            else:
                values[tag] = value
        yield EncodedEntry(values[_ID], values[_TYPE], values[_REVISION], encoded[start:end])
        start = end


def encode_head(
    entry_id: int,
    type_: int,
    time: Time,
    revision: int,
    dropped_bytes: int,
    content_bytes: int,
    names: Names = NO_NAMES,
) -> bytes:
    """Encode everything of an entry that comes before its content of `content_bytes` bytes."""
    message = TaskLogEntry(id=entry_id, revision=revision)
    message.type = cast("TaskLogType.ValueType", type_)
    message.time.seconds, message.time.nanos = time
    if dropped_bytes:
        message.dropped_bytes = dropped_bytes
    if names is not NO_NAMES:
        message.source_id, message.name, message.call_id = names
    # protobuf writes these fields four times as fast as a loop in Python.
    fields = message.SerializeToString() + _begin(_CONTENT, content_bytes)
    return _begin(_LOGS, len(fields) + content_bytes) + fields


def _begin(tag: int, length: int) -> bytes:
    """Encode a tag and the length of what follows."""
    if length < 0x80:
        return bytes((tag, length))
    if length < 0x4000:
        return bytes((tag, length & 0x7F | 0x80, length >> 7))
    return encode_fields((tag, length))


def encode_fields(*fields: tuple[int, int | bytes | None]) -> bytes:
    """Encode tags, each with its value. None is left out.

    An int is an int64, or the length of what follows. Bytes are written with their length. A varint
    has seven bits in each byte; a negative one has ten bytes.
    """
    out = bytearray()
    append = out.append
    for tag, value in fields:
        if value is None:
            continue
        append(tag)
        rest = len(value) if isinstance(value, bytes) else value & 0xFFFF_FFFF_FFFF_FFFF
        while rest > 0x7F:
            append(rest & 0x7F | 0x80)
            rest >>= 7
        append(rest)
        if isinstance(value, bytes):
            out += value
    return bytes(out)


def _varint(encoded: bytes, at: int) -> tuple[int, int]:
    """Return the varint at this position, and the position after it."""
    value = shift = 0
    while True:
        byte = encoded[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
