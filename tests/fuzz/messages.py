"""Builds messages of any type from bytes: they decode, and have unexpected contents."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests.fuzz.byte_reader import ByteReader

_MOST_OF_A_KIND = 3
_DEEPEST = 6
_TEXTS = ("", "a", "\0", "\u202e\n", "é€\U0001f600", "x" * 300, "-1", "%s", "../..", "local/a")
_BYTES = (b"", b"\0", b"\xff\xfe", b"x" * 300)
_FLOATS = (0.0, -0.0, 1.5, float("nan"), float("inf"), float("-inf"), 2.0**31, 1e308, -1.0)
_FIELD = FieldDescriptor
_RANGES = {
    _FIELD.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    _FIELD.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    _FIELD.CPPTYPE_UINT32: (0, 2**32 - 1),
    _FIELD.CPPTYPE_UINT64: (0, 2**64 - 1),
    _FIELD.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}


def built(descriptor: Descriptor, reader: ByteReader, texts: Sequence[str] = ()) -> Message:
    """Return a message of this type. `reader` decides it; strings are from `texts` or unusual."""
    message: Message = GetMessageClass(descriptor)()
    _fill(message, reader, (*texts, *_TEXTS), _DEEPEST)
    return message


def _fill(message: Message, reader: ByteReader, texts: Sequence[str], depth: int) -> None:
    message.SetInParent()
    field: Any
    for field in message.DESCRIPTOR.fields:
        choice = reader.byte()
        if choice & 1 or reader.is_done:
            continue
        if field.is_repeated:
            for _ in range(choice >> 1 & _MOST_OF_A_KIND):
                _add(message, field, reader, texts, depth)
        elif field.cpp_type == _FIELD.CPPTYPE_MESSAGE:
            if depth:
                _fill(getattr(message, field.name), reader, texts, depth - 1)
        else:
            setattr(message, field.name, _scalar(field, reader, texts))


def _add(
    message: Message, field: FieldDescriptor, reader: ByteReader, texts: Sequence[str], depth: int
) -> None:
    values: Any = getattr(message, field.name)
    entry = field.message_type
    if entry is None:
        values.append(_scalar(field, reader, texts))
    elif not depth:
        return
    elif entry.GetOptions().map_entry:
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        at = _scalar(key, reader, texts)
        if value.message_type is None:
            values[at] = _scalar(value, reader, texts)
        else:
            _fill(values[at], reader, texts, depth - 1)
    else:
        _fill(values.add(), reader, texts, depth - 1)


def _scalar(field: FieldDescriptor, reader: ByteReader, texts: Sequence[str]) -> Any:
    match field.cpp_type:
        case _FIELD.CPPTYPE_BOOL:
            return bool(reader.byte() & 1)
        case _FIELD.CPPTYPE_DOUBLE | _FIELD.CPPTYPE_FLOAT:
            return reader.one_of(_FLOATS)
        case _FIELD.CPPTYPE_STRING if field.type == _FIELD.TYPE_BYTES:
            return reader.one_of(_BYTES)
        case _FIELD.CPPTYPE_STRING:
            return reader.one_of(texts)
        case kind:
            return _number(*_RANGES[kind], reader)


def _number(lowest: int, highest: int, reader: ByteReader) -> int:
    form = reader.byte()
    if form < 128:  # most numbers are small
        return form % 16
    if form < 160:
        wide: int = struct.unpack("<q", reader.bytes_(8).ljust(8, b"\0"))[0]
        return max(lowest, min(highest, wide))
    ends = (lowest, highest, max(lowest, -1), 1000, 10_000_000, highest - 1, 1_700_000_000)
    return ends[form % len(ends)]
