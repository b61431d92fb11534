"""Time by which peers are judged: the time in which this process stood still does not count."""

from __future__ import annotations

import asyncio

_MAX_LOOK_SECONDS = 0.25


class StallFreeClock:
    """A clock for cutting off peers that take too long. All times are in seconds.

    After a stall of this process, what peers sent meanwhile is noticed only after the look that was
    due. By the wall clock all of them would have taken too long. So this clock counts looks: each
    one adds the planned time between two looks, however late it comes.

    Nothing is cut off early, and nothing later than two looks after it was due.
    """

    def __init__(self, timeout_seconds: float) -> None:
        """`timeout_seconds`: the shortest time after which something is cut off."""
        self._between_looks = min(timeout_seconds / 8, _MAX_LOOK_SECONDS)
        self.looked_at = 0.0
        """The time of the last look: what began at `begin_at` has lasted at least the difference.

        It never runs back.
        """
        self.begin_at = self._between_looks
        """The time at which something that begins now is said to begin: that of the next look."""

    async def next_look(self) -> float:
        """Wait until it is time to look again. Returns `looked_at`."""
        await asyncio.sleep(self._between_looks)
        self.looked_at = self.begin_at
        self.begin_at += self._between_looks
        return self.looked_at
