"""The running digest of the sealed entries of an epoch.

d_k = SHA-256(d_(k-1) || id || type || time || SHA-256(content) || names), d_0 32 zero bytes in each
epoch; id int32, type one byte, time as seconds int64 and nanoseconds int32, all big-endian. `names`
has, for each of source_id, name and call_id that is not empty, in this order: its field number in
`tasklogs.v1.TaskLogEntry` as one byte, its length in bytes as int32, and its bytes.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

from tasklogs.log.entry import NO_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tasklogs.log.entry import Entry, Names, Time

EMPTY = bytes(32)

_FIELDS = struct.Struct(">iBqi")
_NAME = struct.Struct(">Bi")
_NAME_NUMBERS = (6, 7, 8)
"""Field numbers of source_id, name and call_id."""


def content_hash(content: bytes | bytearray) -> bytes:
    """Return the SHA-256 of `content`, 32 bytes."""
    return hashlib.sha256(content).digest()


def advance(
    digest: bytes,
    entry_id: int,
    entry_type: int,
    time: Time,
    hash_: bytes,
    names: Names = NO_NAMES,
) -> bytes:
    """Return the digest with one more sealed entry, whose content has the SHA-256 `hash_`."""
    fields = _FIELDS.pack(entry_id, entry_type, time.seconds, time.nanos)
    return hashlib.sha256(digest + fields + hash_ + _encoded(names)).digest()


def seal(digest: bytes, entry: Entry) -> bytes:
    """Return the digest with `entry` sealed as well."""
    hash_ = content_hash(entry.content)
    return advance(digest, entry.id, entry.type, entry.time, hash_, entry.names)


def seal_all(entries: Iterable[Entry]) -> bytes:
    """Return the digest of an epoch whose sealed entries are `entries`."""
    return seal_on(EMPTY, entries)


def seal_on(digest: bytes, entries: Iterable[Entry]) -> bytes:
    """Return the digest with all of `entries` sealed as well."""
    for entry in entries:
        digest = seal(digest, entry)
    return digest


def _encoded(names: Names) -> bytes:
    if names == NO_NAMES:
        return b""
    encoded = bytearray()
    for number, text in zip(_NAME_NUMBERS, names, strict=True):
        if text:
            utf8 = text.encode()
            encoded += _NAME.pack(number, len(utf8)) + utf8
    return bytes(encoded)
