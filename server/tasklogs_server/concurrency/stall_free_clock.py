"""A clock for time limits of peers. Time in which this process was stalled does not count."""

from __future__ import annotations

import asyncio

_MAX_LOOK_SECONDS = 0.25


class StallFreeClock:
    """A clock for cutting off peers that take too long. All times are in seconds.

    After a stall of this process, the overdue look comes before the process reads what peers sent
    meanwhile. By the wall clock all of them would have taken too long. So this clock counts looks:
    each look adds the planned time between two looks, even if it is late.

    No peer is cut off early, or later than two looks after its time is over.
    """

    def __init__(self, timeout_seconds: float) -> None:
        """`timeout_seconds`: the shortest time after which a peer is cut off."""
        self._between_looks = min(timeout_seconds / 8, _MAX_LOOK_SECONDS)
        self.looked_at = 0.0
        """The time of the last look. What began at `begin_at` has lasted at least the difference.

        It never decreases.
        """
        self.begin_at = self._between_looks
        """The start time of what begins now: the time of the next look."""

    async def next_look(self) -> float:
        """Wait until it is time to look again. Returns `looked_at`."""
        await asyncio.sleep(self._between_looks)
        self.looked_at = self.begin_at
        self.begin_at += self._between_looks
        return self.looked_at
