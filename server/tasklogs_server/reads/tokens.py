"""Places in a log as opaque tokens: cursors, and page tokens.

A checksum tells a broken token from a place that is gone; it is no secret: whoever makes up a
token learns nothing that the task's own reader could not ask for.
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
_CURSOR = struct.Struct(">c16sq")
_PAGE = struct.Struct(">c16siiiqBBqB8s")
_STATUSES = tuple(TaskStatus)
# Postgres reckons with ordinals as integers, and adds a page's rows.
_MAX_ORDINAL = 2**31 - 1 - 1_000_000


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a task's log: everything up to this revision is known."""

    task_id: UUID
    revision: int

    def encode(self) -> str:
        """Return the token."""
        return seal(_CURSOR.pack(b"c", self.task_id.bytes, self.revision))

    @classmethod
    def decode(cls, token: str, *, field: str = "cursor") -> Cursor:
        """Read a token. Raises InvalidFields for `field`."""
        kind, task_id, revision = unseal(_CURSOR, token, field)
        if kind != b"c" or revision < 0:
            raise not_a_token(field)
        return cls(UUID(bytes=task_id), revision)


@dataclass(frozen=True, slots=True)
class PagePlace:
    """Where the next page begins, and what the first page decided.

    `start` and `end` are ordinals; `fingerprint` is of the request, so that a token is used with
    the arguments it was given for.
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
        return seal(
            _PAGE.pack(
                b"p",
                self.task_id.bytes,
                self.epoch,
                self.start,
                self.end,
                self.revision,
                self.snapshot,
                at is not None,
                0 if at is None else _micros(at),
                _STATUSES.index(self.status),
                self.fingerprint,
            )
        )

    @classmethod
    def decode(cls, token: str, *, fingerprint: bytes) -> PagePlace:
        """Read a token that was given for a request of this fingerprint. Raises InvalidFields."""
        kind, task_id, epoch, start, end, revision, snapshot, has_at, at, status, made_for = unseal(
            _PAGE, token, "page_token"
        )
        in_range = epoch >= 0 and 0 <= start <= end <= _MAX_ORDINAL and revision >= 0
        if kind != b"p" or status >= len(_STATUSES) or not in_range:
            raise not_a_token("page_token")
        if made_for != fingerprint:
            raise InvalidFields(
                [FieldViolation("page_token", "was given for a request with other arguments")]
            )
        return cls(
            task_id=UUID(bytes=task_id),
            epoch=epoch,
            start=start,
            end=end,
            revision=revision,
            snapshot=bool(snapshot),
            snapshot_at=_moment(at) if has_at else None,
            status=_STATUSES[status],
            fingerprint=made_for,
        )


def fingerprint(arguments: bytes) -> bytes:
    """Return 8 bytes that tell a request's arguments from others."""
    return hashlib.sha256(arguments).digest()[:8]


_EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = datetime.resolution


def _moment(micros: int) -> datetime:
    try:
        return _EPOCH_START + micros * _MICROSECOND
    except OverflowError:
        raise not_a_token("page_token") from None


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH_START) // _MICROSECOND


def seal(payload: bytes) -> str:
    """Return `payload` and a checksum as a token."""
    checksum = hashlib.sha256(payload).digest()[:_CHECKSUM_BYTES]
    return base64.urlsafe_b64encode(payload + checksum).rstrip(b"=").decode()


def unseal(layout: struct.Struct, token: str, field: str) -> tuple[Any, ...]:
    """Unpack what was sealed. Raises InvalidFields for `field`."""
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        raw = base64.b64decode(padded, altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise not_a_token(field) from None
    payload, checksum = raw[:-_CHECKSUM_BYTES], raw[-_CHECKSUM_BYTES:]
    if (
        len(payload) != layout.size
        or hashlib.sha256(payload).digest()[:_CHECKSUM_BYTES] != checksum
    ):
        raise not_a_token(field)
    return layout.unpack(payload)


def not_a_token(field: str) -> InvalidFields:
    """Return what a token is answered with that this service did not make."""
    return InvalidFields([FieldViolation(field, "is not a token of this service")])
