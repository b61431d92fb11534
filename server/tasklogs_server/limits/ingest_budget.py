"""A bound on the bytes that all sessions of the process hold unacknowledged."""

from __future__ import annotations

import asyncio
from collections import deque


class Budget:
    """Bytes to be taken and given back. Takers wait their turn, first come, first served."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._held = 0
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def held_bytes(self) -> int:
        """What is taken now."""
        return self._held

    async def take(self, size_bytes: int) -> None:
        """Take `size_bytes`; wait while they do not fit. One taker alone always fits."""
        if not self._waiters and self._fits(size_bytes):
            self._held += size_bytes
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiters.append((size_bytes, turn))
        try:
            await turn
        except asyncio.CancelledError:
            # Cancelled in its turn: the bytes were taken. Before it: it was in others' way.
            self.give_back(size_bytes if turn.done() and not turn.cancelled() else 0)
            raise

    def give_back(self, size_bytes: int) -> None:
        """Give bytes back and let those who wait for them go on."""
        self._held -= size_bytes
        while self._waiters:
            wanted, turn = self._waiters[0]
            if not turn.done():
                if not self._fits(wanted):
                    return
                self._held += wanted
                turn.set_result(None)
            self._waiters.popleft()

    def _fits(self, size_bytes: int) -> bool:
        return self._held == 0 or self._held + size_bytes <= self._limit
