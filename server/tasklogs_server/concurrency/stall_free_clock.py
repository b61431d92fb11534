"""Time as callers may be held to it: what the server itself stood still for does not count."""

from __future__ import annotations

import asyncio
import time

_LOOK_SECONDS = 0.5


class Attention:
    """A clock, in seconds, for whoever cuts off peers that take too long.

    After a stall, what peers did meanwhile is heard of only after the look that was due: judged by
    the wall clock, all of them would have taken too long. A look that comes late counts as one that
    came when it was due; so time passes only while somebody looks.
    """

    def __init__(self, patience_seconds: float) -> None:
        """Look often enough to end what takes longer than `patience_seconds` not much later."""
        self._between_looks = min(patience_seconds / 4, _LOOK_SECONDS)
        self._counted = 0.0
        self._looked = time.monotonic()

    def now(self) -> float:
        """Seconds of attention so far; never runs back."""
        return self._counted + min(time.monotonic() - self._looked, self._between_looks)

    async def next_look(self) -> float:
        """Wait until it is time to look again, and return `now`."""
        await asyncio.sleep(self._between_looks)
        self._counted = self.now()
        self._looked = time.monotonic()
        return self._counted
