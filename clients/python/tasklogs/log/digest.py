"""The running digest of the sealed entries of an epoch.

d_k = SHA-256(d_(k-1) || id || type || time || SHA-256(content)), d_0 32 zero bytes in each epoch;
id int32, type one byte, time as seconds int64 and nanoseconds int32, all big-endian.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tasklogs.log.entry import Entry, Time

EMPTY = bytes(32)

_FIELDS = struct.Struct(">iBqi")


def content_hash(content: bytes | bytearray) -> bytes:
    """Return the SHA-256 of `content`, 32 bytes."""
    return hashlib.sha256(content).digest()


def advance(digest: bytes, entry_id: int, entry_type: int, time: Time, hash_: bytes) -> bytes:
    """Return the digest with one more sealed entry, whose content has the SHA-256 `hash_`."""
    fields = _FIELDS.pack(entry_id, entry_type, time.seconds, time.nanos)
    return hashlib.sha256(digest + fields + hash_).digest()


def seal(digest: bytes, entry: Entry) -> bytes:
    """Return the digest with `entry` sealed as well."""
    return advance(digest, entry.id, entry.type, entry.time, content_hash(entry.content))


def seal_all(entries: Iterable[Entry]) -> bytes:
    """Return the digest of an epoch whose sealed entries are `entries`."""
    value = EMPTY
    for entry in entries:
        value = seal(value, entry)
    return value
