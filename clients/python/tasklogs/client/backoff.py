"""How long a broken follow waits before it reconnects."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

from tasklogs.connection import backoff

_ASKED_AT_MOST_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconnectWaits:
    """The n-th wait in a row is `first` x 2^(n-1), at most `cap`, less a random part up to half.

    The second message of the new stream resets the count. If the server says how long to wait, that
    is used instead, up to an hour, plus a random part up to half.
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
        """Count a failure and return the wait; `retry_after` is what the server asked for."""
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
        """Reset the count: the follow continues."""
        self.failures = 0
