"""A limit on the unacknowledged bytes of all sessions of the process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class IngestBudget:
    """Bytes that sessions acquire and release. Sessions that must wait are served in order."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._held = 0
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._shortages: list[Callable[[], None]] = []

    @property
    def is_short(self) -> bool:
        """Whether a session waits for bytes."""
        return any(not turn.done() for _, turn in self._waiters)

    def on_shortage(self, notify: Callable[[], None]) -> None:
        """Call `notify` whenever a session has to wait for bytes."""
        self._shortages.append(notify)

    @property
    def held_bytes(self) -> int:
        """The bytes that are acquired now."""
        return self._held

    async def acquire(self, size_bytes: int) -> None:
        """Acquire `size_bytes`, waiting while they do not fit. If none are held, any size fits."""
        if not self._waiters and self._fits(size_bytes):
            self._held += size_bytes
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiters.append((size_bytes, turn))
        for notify in self._shortages:
            notify()
        try:
            await turn
        except asyncio.CancelledError:
            # Cancelled after its turn, it has acquired the bytes. Before, those behind it may fit.
            self.release(size_bytes if turn.done() and not turn.cancelled() else 0)
            raise

    def release(self, size_bytes: int) -> None:
        """Release bytes, and let those who wait for them go on."""
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
