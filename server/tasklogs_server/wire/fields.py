"""The fields of an encoded message, without decoding them.

To decode a message takes as long as its sender wants, within its size: a map of 350,000 keys took
2.3 s, and protobuf does not let another thread run meanwhile. These functions find the parts of a
message, so that they can be counted, and decoded one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from google.protobuf.message import DecodeError

from tasklogs_server.domain.errors import FieldViolation, InvalidFields

Field = tuple[int, int, int, int]
"""The tag with its wire type; where the field begins, its value begins, and both end."""

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


def fields(encoded: bytes, start: int, end: int) -> Iterator[Field]:
    """Yield the fields of the message in `encoded[start:end]`, in order.

    The value of a length-delimited field begins after its length. Raises DecodeError. Groups, which
    proto3 does not have, raise it too.
    """
    at = start
    try:
        while at < end:
            first = at
            tag = encoded[at]
            at += 1
            if tag > 0x7F:
                tag, at = varint(encoded, first)
            kind = tag & 7
            begin = at
            if kind == _LENGTH_DELIMITED:
                size = encoded[at]
                at += 1
                if size > 0x7F:
                    size, at = varint(encoded, begin)
                begin = at
                at += size
            elif kind == _VARINT:
                _, at = varint(encoded, at)
            elif kind == _FIXED64:
                at += 8
            elif kind == _FIXED32:
                at += 4
            else:
                raise DecodeError(f"wire type {kind}")
            if at > end or tag < 8:
                raise DecodeError("a field is cut off, or has no number")
            yield tag, first, begin, at
    except IndexError:
        raise DecodeError("a field is cut off") from None


def has_more_fields(encoded: bytes, at_most: int) -> bool:
    """Whether a message has more fields than that. It looks at no further one.

    Raises DecodeError. A repeated field counts as often as it comes; fields inside do not count.
    """
    return sum(1 for _ in islice(fields(encoded, 0, len(encoded)), at_most + 1)) > at_most


def varint(encoded: bytes, at: int) -> tuple[int, int]:
    """Return the unsigned number at this position, and the position after it.

    Raises DecodeError if it is too long, and IndexError if it is cut off.
    """
    value = 0
    for shift in range(0, 7 * _MAX_VARINT_BYTES, 7):
        byte = encoded[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise DecodeError("a varint has more than ten bytes")


def undecodable() -> InvalidFields:
    """Return the error of a request that is malformed, nested too deep, or not in UTF-8."""
    what = "cannot be decoded as a message of its type"
    return InvalidFields([FieldViolation("request", what)])


class Runs:
    """Fields that follow each other, joined to pieces that can be decoded at a time.

    Each is a pair: its begin and its end. A large field is a run of its own.
    """

    def __init__(self, *, fields: int, size_bytes: int) -> None:
        """A run has at most so many fields, and so many bytes unless it is one field."""
        self._most = fields
        self._size_bytes = size_bytes
        self._count = 0
        self.fields = 0
        """How many fields were added."""
        self.all: list[tuple[int, int]] = []

    def add(self, field: Field) -> None:
        """Add a field that comes after those before it."""
        _, first, _, end = field
        self.fields += 1
        if self.all:
            begin, last_end = self.all[-1]
            fits = self._count < self._most and end - begin <= self._size_bytes
            if first == last_end and fits:
                self.all[-1] = (begin, end)
                self._count += 1
                return
        self.all.append((first, end))
        self._count = 1
