"""How long a client waits before it connects again."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from tasklogs.connection.backoff import asked_seconds, growing_seconds

RNG = random.Random(7)


@given(st.integers(min_value=1, max_value=10**6))
def test_a_wait_doubles_with_each_failure_up_to_its_cap(failures: int) -> None:
    ceiling = min(10.0, 0.25 * 2 ** min(failures - 1, 30))
    assert ceiling / 2 <= growing_seconds(failures, first=0.25, cap=10.0, rng=RNG) <= ceiling


@given(st.floats(min_value=0, max_value=1e9))
def test_a_requested_wait_is_never_shorter_and_has_a_cap(asked: float) -> None:
    least = min(asked, 3600.0)
    assert least <= asked_seconds(asked, cap=3600.0, rng=RNG) <= least * 1.5


def test_a_negative_wait_is_no_wait() -> None:
    assert asked_seconds(-5.0, cap=3600.0, rng=RNG) == 0.0
