"""Peers that are refused together get different waiting times."""

from __future__ import annotations

from datetime import timedelta

from tasklogs_server.concurrency.jitter import spread


def test_times_lie_within_their_bounds_and_differ() -> None:
    times = [spread(0.5, 2.0) for _ in range(200)]
    assert all(timedelta(seconds=0.5) <= time <= timedelta(seconds=2) for time in times)
    assert len(set(times)) > 100
    assert max(times) - min(times) > timedelta(seconds=1)
