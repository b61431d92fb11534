"""How long a broken follow waits before it goes on."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

from tasklogs.connection import backoff

_ASKED_AT_MOST_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class ReconnectWaits:
    """The n-th wait in a row is `first` x 2^(n-1), at most `cap`, less up to half of it by chance.

    A message that the new stream brings begins the row anew. Where the server says how long, that
    counts instead, up to an hour, plus up to half of it by chance.
    """

    first: timedelta = timedelta(milliseconds=200)
    cap: timedelta = timedelta(seconds=10)


class Backoff:
    """Counts failures in a row."""

    def __init__(self, waits: ReconnectWaits, rng: random.Random) -> None:
        self._waits = waits
        self._rng = rng
        self.failures = 0

    def next_wait(self, retry_after: timedelta | None) -> timedelta:
        """Count a failure and return how long to wait; `retry_after` is what the server said."""
        self.failures += 1
        if retry_after is not None:
            seconds = backoff.asked_seconds(
                retry_after.total_seconds(), cap=_ASKED_AT_MOST_SECONDS, rng=self._rng
            )
        else:
            seconds = backoff.growing_seconds(
                self.failures,
                first=self._waits.first.total_seconds(),
                cap=self._waits.cap.total_seconds(),
                rng=self._rng,
            )
        return timedelta(seconds=seconds)

    def reset(self) -> None:
        """The follow goes on: the next failure is the first of a row."""
        self.failures = 0
