"""A burst after a pause, and a rate per second on average."""

from __future__ import annotations

import pytest

from tasklogs_server.limits.token_buckets import TokenBuckets
from tests.support.fixtures.moved_clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def taken(buckets: TokenBuckets[str], key: str, attempts: int = 100) -> int:
    """Try to spend tokens at once. Returns how many are spent."""
    return [buckets.spend(key) for _ in range(attempts)].count(0.0)


def test_a_bucket_allows_a_burst_and_then_its_rate(clock: Clock) -> None:
    buckets = TokenBuckets[str](0.5, 3, clock=clock)
    assert taken(buckets, "a") == 3
    clock.now += 1.9
    assert taken(buckets, "a") == 0
    clock.now += 0.1
    assert taken(buckets, "a") == 1
    clock.now += 1_000_000
    assert taken(buckets, "a") == 3


def test_a_refusal_spends_no_token(clock: Clock) -> None:
    buckets = TokenBuckets[str](1, 1, clock=clock)
    assert taken(buckets, "a") == 1
    for _ in range(10):
        clock.now += 0.0999
        assert taken(buckets, "a") == 0
    clock.now += 0.01
    assert taken(buckets, "a") == 1


def test_the_time_until_a_token_is_returned_and_asking_spends_none(clock: Clock) -> None:
    buckets = TokenBuckets[str](0.5, 2, clock=clock)
    assert [buckets.wait_seconds("a") for _ in range(5)] == [0.0] * 5
    assert taken(buckets, "a", 2) == 2
    assert buckets.wait_seconds("a") == pytest.approx(2.0)
    clock.now += 0.5
    assert buckets.wait_seconds("a") == pytest.approx(1.5)
    assert buckets.spend("a") == pytest.approx(1.5)
    clock.now += 1.5
    assert buckets.wait_seconds("a") == 0.0
    assert buckets.spend("a") == 0.0


def test_tokens_that_are_not_there_yet_can_be_charged(clock: Clock) -> None:
    buckets = TokenBuckets[str](1, 3, clock=clock)
    buckets.charge("a", 5)
    assert buckets.wait_seconds("a") == 3
    clock.now += 3
    assert taken(buckets, "a") == 1


def test_each_key_has_a_bucket_of_its_own(clock: Clock) -> None:
    buckets = TokenBuckets[str](1, 2, clock=clock)
    assert taken(buckets, "a") == 2
    assert taken(buckets, "b") == 2


def test_full_buckets_are_forgotten(clock: Clock) -> None:
    buckets = TokenBuckets[str](2, 3, clock=clock)
    for number in range(25_000):
        buckets.spend(f"key {number}")
        clock.now += 0.001
    assert len(buckets) <= 10_001


def test_a_bucket_that_is_not_full_is_not_forgotten(clock: Clock) -> None:
    buckets = TokenBuckets[str](1e-9, 1, clock=clock)
    for number in range(25_000):
        assert buckets.spend(f"key {number}") == 0.0
    assert buckets.spend("key 0") > 0
