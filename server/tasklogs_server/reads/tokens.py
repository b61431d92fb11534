"""Opaque tokens that callers send back: cursors and page tokens.

A checksum distinguishes a damaged token from an expired one. It is not a secret: with a forged
token a caller reads nothing that it could not read without one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from tasklogs_server.domain.errors import FieldViolation, InvalidFields
from tasklogs_server.domain.status import TaskStatus

_CHECKSUM_BYTES = 6
_STATUSES = tuple(TaskStatus)
# Ordinals are Postgres integers, and a page's rows are added to them.
_MAX_ORDINAL = 2**31 - 1 - 1_000_000
_EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = datetime.resolution


class TokenLayout:
    """The layout of one kind of token: a letter for the kind, then fields as in `struct`."""

    def __init__(self, kind: bytes, fields: str) -> None:
        self._kind = kind
        self._layout = struct.Struct(f">c{fields}")

    def seal(self, *values: object) -> str:
        """Return the token with these values."""
        payload = self._layout.pack(self._kind, *values)
        checksum = hashlib.sha256(payload).digest()[:_CHECKSUM_BYTES]
        return base64.urlsafe_b64encode(payload + checksum).rstrip(b"=").decode()

    def unseal(self, token: str, field: str) -> tuple[Any, ...]:
        """Return the values of a token. Raises InvalidFields for `field`."""
        try:
            padded = token.encode("ascii") + b"=" * (-len(token) % 4)
            raw = base64.b64decode(padded, altchars=b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error):
            raise not_a_token(field) from None
        payload, checksum = raw[:-_CHECKSUM_BYTES], raw[-_CHECKSUM_BYTES:]
        if (
            len(payload) != self._layout.size
            or hashlib.sha256(payload).digest()[:_CHECKSUM_BYTES] != checksum
        ):
            raise not_a_token(field)
        kind, *values = self._layout.unpack(payload)
        if kind != self._kind:
            raise not_a_token(field)
        return tuple(values)


_CURSOR = TokenLayout(b"c", "16sq")
# The kind, the task and the high half of the revision are 21 bytes: exactly 28 characters.
_CURSOR_BEGIN_CHARACTERS = 28
_HIGH_HALF = 1 << 32
_PAGE = TokenLayout(b"p", "16siiiqBBqB8s")


@dataclass(frozen=True, slots=True)
class Cursor:
    """A revision of a task's log. The holder of the cursor knows all changes up to it."""

    task_id: UUID
    revision: int

    def encode(self) -> str:
        """Return the token."""
        return _CURSOR.seal(self.task_id.bytes, self.revision)

    @property
    def end(self) -> str:
        """In what the token differs from that of an earlier revision of the task.

        Empty if it may differ in more.
        """
        return self.encode()[_CURSOR_BEGIN_CHARACTERS:] if self.revision < _HIGH_HALF else ""

    @classmethod
    def decode(cls, token: str, *, field: str = "cursor") -> Cursor:
        """Read a token. Raises InvalidFields for `field`."""
        task_id, revision = _CURSOR.unseal(token, field)
        if revision < 0:
            raise not_a_token(field)
        return cls(UUID(bytes=task_id), revision)


@dataclass(frozen=True, slots=True)
class PageToken:
    """Where the next page begins, and what the first page decided.

    `start` and `end` are ordinals. `fingerprint` is that of the request: a token is valid only with
    the arguments that it was made for.
    """

    task_id: UUID
    epoch: int
    start: int
    end: int
    revision: int
    snapshot: bool
    snapshot_at: datetime | None
    status: TaskStatus
    fingerprint: bytes

    def encode(self) -> str:
        """Return the token."""
        at = self.snapshot_at
        return _PAGE.seal(
            self.task_id.bytes,
            self.epoch,
            self.start,
            self.end,
            self.revision,
            self.snapshot,
            at is not None,
            0 if at is None else micros_of(at),
            _STATUSES.index(self.status),
            self.fingerprint,
        )

    @classmethod
    def decode(cls, token: str, *, fingerprint: bytes) -> PageToken:
        """Read a token that was made for a request with this fingerprint. Raises InvalidFields."""
        task_id, epoch, start, end, revision, snapshot, has_at, at, status, made_for = _PAGE.unseal(
            token, "page_token"
        )
        in_range = epoch >= 0 and 0 <= start <= end <= _MAX_ORDINAL and revision >= 0
        if status >= len(_STATUSES) or not in_range:
            raise not_a_token("page_token")
        check_fingerprint(made_for, fingerprint)
        return cls(
            task_id=UUID(bytes=task_id),
            epoch=epoch,
            start=start,
            end=end,
            revision=revision,
            snapshot=bool(snapshot),
            snapshot_at=datetime_of(at) if has_at else None,
            status=_STATUSES[status],
            fingerprint=made_for,
        )


def fingerprint(arguments: bytes) -> bytes:
    """Return an 8-byte hash of a request's arguments."""
    return hashlib.sha256(arguments).digest()[:8]


def check_fingerprint(made_for: bytes, fingerprint: bytes) -> None:
    """Raise InvalidFields if a page token was made for another request."""
    if made_for != fingerprint:
        raise InvalidFields(
            [FieldViolation("page_token", "was given for a request with other arguments")]
        )


def micros_of(time: datetime) -> int:
    """Return a time as page tokens store it: in microseconds since 1970."""
    return (time - _EPOCH_START) // _MICROSECOND


def datetime_of(micros: int) -> datetime:
    """Return the time for these microseconds. Raises InvalidFields if it is out of range."""
    try:
        return _EPOCH_START + micros * _MICROSECOND
    except OverflowError:
        raise not_a_token("page_token") from None


def not_a_token(field: str) -> InvalidFields:
    """Return the error for a token that this service did not make."""
    return InvalidFields([FieldViolation(field, "is not a token of this service")])
