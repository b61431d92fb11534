"""A sync counts only with the fence that the row has, and with its revision (I10)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tasklogs_server.domain.synced import StoredState, Synced

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("stored", "is_held"),
    [
        (StoredState(fence=3, revision=10, start_build=2), True),
        (StoredState(fence=3, revision=11, start_build=None), True),
        (StoredState(fence=3, revision=9, start_build=2), False),
        (StoredState(fence=4, revision=11, start_build=2), False),
        (StoredState(fence=2, revision=11, start_build=2), False),
        (StoredState(fence=3, revision=10, start_build=3), False),
    ],
)
def test_a_sync_is_held_by_its_own_fence_a_revision_not_below_and_no_newer_build(
    stored: StoredState, is_held: bool
) -> None:
    assert Synced(NOON, fence=3, revision=10, build_number=2).is_held_by(stored) is is_held


def test_a_session_without_a_build_follows_the_latest_one() -> None:
    stored = StoredState(fence=3, revision=10, start_build=3)
    assert Synced(NOON, fence=3, revision=10).is_held_by(stored)
