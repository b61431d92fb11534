"""Forged tokens: the checksum is not a secret."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from tasklogs_server.domain.errors import InvalidFields
from tasklogs_server.domain.status import TaskStatus
from tasklogs_server.reads.tokens import _PAGE, Cursor, PageToken

FINGERPRINT = bytes(8)
PAGE_TOKEN = PageToken(
    task_id=UUID(int=7),
    epoch=1,
    start=30,
    end=60,
    revision=61,
    snapshot=True,
    snapshot_at=datetime(2026, 1, 1, tzinfo=UTC),
    status=TaskStatus.ACTIVE,
    fingerprint=FINGERPRINT,
)


def test_a_page_token_is_decoded_as_it_was_encoded() -> None:
    assert PageToken.decode(PAGE_TOKEN.encode(), fingerprint=FINGERPRINT) == PAGE_TOKEN


@pytest.mark.parametrize(
    "made_up",
    [
        {"epoch": -1},
        {"start": -1},
        {"start": 61},
        {"start": 2**31 - 1, "end": 2**31 - 1},  # Postgres would add a page's rows to it
        {"end": 2**31 - 1},
        {"revision": -1},
    ],
    ids=str,
)
def test_a_page_token_with_numbers_that_no_log_has_is_refused(made_up: dict[str, Any]) -> None:
    with pytest.raises(InvalidFields):
        PageToken.decode(replace(PAGE_TOKEN, **made_up).encode(), fingerprint=FINGERPRINT)


@pytest.mark.parametrize("micros", [-(2**63), 2**63 - 1])
def test_a_page_token_with_a_time_out_of_range_is_refused(micros: int) -> None:
    token = _PAGE.seal(bytes(16), 1, 0, 1, 5, True, True, micros, 0, FINGERPRINT)
    with pytest.raises(InvalidFields):
        PageToken.decode(token, fingerprint=FINGERPRINT)


def test_a_cursor_with_a_negative_revision_is_refused() -> None:
    with pytest.raises(InvalidFields):
        Cursor.decode(Cursor(UUID(int=7), -1).encode())


def test_a_token_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidFields, match="cursor: is not a token"):
        Cursor.decode(PAGE_TOKEN.encode())
    with pytest.raises(InvalidFields, match="page_token: is not a token"):
        PageToken.decode(Cursor(UUID(int=7), 1).encode(), fingerprint=FINGERPRINT)
