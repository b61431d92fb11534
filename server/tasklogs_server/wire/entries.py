"""How a sealed entry is stored: its place on the wire, encoded once.

`head || content` is the field `logs` of `tasklogs.v1.GetTaskLogsResponse` (and of a follow's
`Entries`) as it travels: the field's tag and length, the `TaskLogEntry`'s small fields, then the
tag and length of its `content`. So reading is joining bytes. tests/wire/test_entries.py holds
this against the stubs.
"""

from __future__ import annotations

from tasklogs.log.entry import EntryType, Time

_LOGS = b"\x0a"  # field 1, length-delimited
_ID = b"\x08"  # field 1, varint
_TYPE = b"\x10"  # field 2, varint
_TIME = b"\x1a"  # field 3, length-delimited
_REVISION = b"\x20"  # field 4, varint
_DROPPED_BYTES = b"\x28"  # field 5, varint
_CONTENT = b"\x7a"  # field 15, length-delimited


def varint(value: int) -> bytes:
    """Encode an int64 as protobuf does: seven bits a byte, negatives in ten bytes."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_head(
    entry_id: int,
    type_: EntryType,
    time: Time,
    revision: int,
    dropped_bytes: int,
    content_bytes: int,
) -> bytes:
    """Encode all of an entry that goes in front of its content of `content_bytes` bytes."""
    stamp = b""
    if time.seconds:
        stamp += b"\x08" + varint(time.seconds)
    if time.nanos:
        stamp += b"\x10" + varint(time.nanos)
    fields = _ID + varint(entry_id) + _TYPE + varint(type_)
    fields += _TIME + varint(len(stamp)) + stamp + _REVISION + varint(revision)
    if dropped_bytes:
        fields += _DROPPED_BYTES + varint(dropped_bytes)
    fields += _CONTENT + varint(content_bytes)
    return _LOGS + varint(len(fields) + content_bytes) + fields
