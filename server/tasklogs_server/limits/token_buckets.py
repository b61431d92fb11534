"""Token buckets: a rate per second on average, and a burst after a pause."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

from tasklogs_server.concurrency.jitter import spread

K = TypeVar("K", bound=Hashable)

# Beyond this number, buckets that are full again are forgotten: a new bucket is full too. If few
# are full, this is not tried again before there are twice as many buckets, since it looks at all.
_BUCKETS = 10_000
_SHORTEST_WAIT_SECONDS = 0.1


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class TokenBuckets(Generic[K]):
    """One bucket for each key, full at first. `clock` is monotonic, in seconds."""

    def __init__(self, per_second: float, at_once: int, *, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._at_once = float(at_once)
        self._clock = clock
        self._buckets: dict[K, _Bucket] = {}
        self._forget_beyond = _BUCKETS

    def __len__(self) -> int:
        """How many buckets are stored; all others are full."""
        return len(self._buckets)

    def spend(self, key: K) -> float:
        """Spend one token. If there is none, return the seconds until there is one, otherwise 0."""
        now = self._clock()
        bucket = self._buckets.get(key) or self._add(key, now)
        tokens = self._tokens(bucket, now)
        bucket.filled_at = now
        if tokens >= 1:
            bucket.tokens = tokens - 1
            return 0.0
        bucket.tokens = tokens
        return self._wait_seconds(tokens)

    def charge(self, key: K, tokens: float) -> None:
        """Spend tokens, also ones that are not there yet."""
        now = self._clock()
        bucket = self._buckets.get(key) or self._add(key, now)
        bucket.tokens = self._tokens(bucket, now) - tokens
        bucket.filled_at = now

    def wait_seconds(self, key: K) -> float:
        """Return the seconds until there is a token; 0 if there is one."""
        bucket = self._buckets.get(key)
        return 0.0 if bucket is None else self._wait_seconds(self._tokens(bucket, self._clock()))

    def _wait_seconds(self, tokens: float) -> float:
        return max(0.0, (1 - tokens) / self._per_second)

    def _add(self, key: K, now: float) -> _Bucket:
        if len(self._buckets) >= self._forget_beyond:
            self._forget_full_ones(now)
        bucket = self._buckets[key] = _Bucket(self._at_once, now)
        return bucket

    def _tokens(self, bucket: _Bucket, now: float) -> float:
        tokens = bucket.tokens + (now - bucket.filled_at) * self._per_second
        return tokens if tokens < self._at_once else self._at_once

    def _forget_full_ones(self, now: float) -> None:
        self._buckets = {
            key: bucket
            for key, bucket in self._buckets.items()
            if self._tokens(bucket, now) < self._at_once
        }
        self._forget_beyond = max(_BUCKETS, 2 * len(self._buckets))


def retry_after(wait_seconds: float) -> timedelta:
    """Return what to tell a caller who has to wait: a bit longer, and up to twice as long."""
    shortest = max(wait_seconds, _SHORTEST_WAIT_SECONDS)
    return spread(shortest, 2 * shortest)
