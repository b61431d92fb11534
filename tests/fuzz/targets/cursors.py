"""Cursors and page tokens: opaque strings that callers send back."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import ClassVar
from uuid import UUID

from tasklogs.v1 import tasks_pb2 as pb
from tasklogs_server.domain.errors import InvalidFields
from tasklogs_server.domain.status import TaskStatus
from tasklogs_server.reads.tokens import Cursor, PageToken
from tasklogs_server.services.tasks import page_token_of, position_of
from tests.fuzz.target import Target

_FINGERPRINT = hashlib.sha256(b"").digest()[:8]
_TASK = UUID(int=0x0123456789ABCDEF0123456789ABCDEF)
_AT = datetime(2026, 1, 1, 12, 30, 0, 123456, tzinfo=UTC)
_CHECKSUM_BYTES = 6
_MADE_UP = b"!"
"""Marks a payload that gets a valid checksum. Without one, a token is refused at once."""


class Cursors(Target):
    """A token, or a payload with a valid checksum: anybody can compute the checksum.

    It is refused for its own field, or decoded to a position that encodes to an equal token.
    """

    name: ClassVar[str] = "cursors"
    max_bytes: ClassVar[int] = 256

    def seeds(self) -> Iterable[bytes]:
        tokens = [
            Cursor(_TASK, 7).encode(),
            Cursor(UUID(int=0), 2**63 - 1).encode(),
            _page(_AT).encode(),
            _page(None).encode(),
            page_token_of((_AT, _TASK), pb.ListTasksRequest()),
        ]
        for token in tokens:
            yield token.encode()
            padded = token + "=" * (-len(token) % 4)
            payload = base64.urlsafe_b64decode(padded)[:-_CHECKSUM_BYTES]
            yield _MADE_UP + payload
            for place in range(1, len(payload), 2):
                for end in (b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff\xff\xff\xff"):
                    yield _MADE_UP + payload[:place] + end + payload[place + 4 :]

    def run(self, data: bytes) -> None:
        token = _token(data)
        _refused_or_the_same(
            "cursor", lambda: Cursor.decode(token), lambda again: Cursor.decode(again)
        )
        _refused_or_the_same(
            "page_token",
            lambda: PageToken.decode(token, fingerprint=_FINGERPRINT),
            lambda again: PageToken.decode(again, fingerprint=_FINGERPRINT),
        )
        if token:
            _of_tasks(token)


def _token(data: bytes) -> str:
    if data[:1] == _MADE_UP:
        payload = data[1:]
        sealed = payload + hashlib.sha256(payload).digest()[:_CHECKSUM_BYTES]
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()
    # protobuf delivers only valid UTF-8.
    return data.decode(errors="replace")


def _page(at: datetime | None) -> PageToken:
    return PageToken(_TASK, 1, 30, 60, 61, True, at, TaskStatus.ACTIVE, _FINGERPRINT)


def _refused_or_the_same(
    field: str,
    decode: Callable[[], Cursor | PageToken],
    decode_again: Callable[[str], Cursor | PageToken],
) -> None:
    try:
        place = decode()
    except InvalidFields as refused:
        assert [one.field for one in refused.violations] == [field]
        return
    assert place.revision >= 0
    assert decode_again(place.encode()) == place


def _of_tasks(token: str) -> None:
    try:
        place = position_of(pb.ListTasksRequest(page_token=token))
    except InvalidFields as refused:
        assert [one.field for one in refused.violations] == ["page_token"]
        return
    again = page_token_of(place, pb.ListTasksRequest())
    assert position_of(pb.ListTasksRequest(page_token=again)) == place
