"""An event loop on which no time passes while nobody waits, and all that anybody waits for passes
at once."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class _NoWaiting(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise AssertionError("everybody waits for what will never come")
        self.now += max(0.0, timeout)
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """For code that waits for timers and for itself, and for no file or socket."""

    def __init__(self) -> None:
        self._waits = _NoWaiting()
        super().__init__(self._waits)

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._waits.now
