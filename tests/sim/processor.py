"""Modelled processors: work waits until the work before it is done."""

from __future__ import annotations

import asyncio
import heapq


class Processor:
    """Some cores that take work in the order in which it comes."""

    def __init__(self, cores: int = 1) -> None:
        self._free_at = [0.0] * cores
        self.used_seconds = 0.0
        """Of all cores together."""

    def reserve(self, seconds: float) -> float:
        """Take work now; return the time of the loop at which it is done."""
        now = asyncio.get_running_loop().time()
        self.used_seconds += seconds
        done_at = max(now, self._free_at[0]) + seconds
        heapq.heapreplace(self._free_at, done_at)
        return done_at

    async def work(self, seconds: float) -> None:
        """Wait until work that comes now is done."""
        await sleep_until(self.reserve(seconds))


async def sleep_until(at: float) -> None:
    """Wait until this time of the loop."""
    await asyncio.sleep(max(0.0, at - asyncio.get_running_loop().time()))
