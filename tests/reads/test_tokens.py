"""Tokens that somebody made up: the checksum is no secret."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from tasklogs_server.domain.errors import InvalidFields
from tasklogs_server.domain.status import TaskStatus
from tasklogs_server.reads.tokens import _PAGE, Cursor, PagePlace, seal

FINGERPRINT = bytes(8)
PLACE = PagePlace(
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


def test_a_place_comes_back_as_it_was() -> None:
    assert PagePlace.decode(PLACE.encode(), fingerprint=FINGERPRINT) == PLACE


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
def test_a_page_token_with_numbers_that_no_log_has_is_none(made_up: dict[str, Any]) -> None:
    with pytest.raises(InvalidFields):
        PagePlace.decode(replace(PLACE, **made_up).encode(), fingerprint=FINGERPRINT)


@pytest.mark.parametrize("micros", [-(2**63), 2**63 - 1])
def test_a_page_token_of_a_moment_that_no_calendar_has_is_none(micros: int) -> None:
    token = seal(_PAGE.pack(b"p", bytes(16), 1, 0, 1, 5, True, True, micros, 0, FINGERPRINT))
    with pytest.raises(InvalidFields):
        PagePlace.decode(token, fingerprint=FINGERPRINT)


def test_a_cursor_before_the_beginning_is_none() -> None:
    with pytest.raises(InvalidFields):
        Cursor.decode(Cursor(UUID(int=7), -1).encode())
