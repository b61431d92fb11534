"""Long work in pieces that uses a part of the event loop's time only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

# A call makes a dozen turns of the loop, and each may have to wait for a piece. With a rest as long
# as the piece, half of the turns wait; with this one, a third of them.
_REST = 2.0
# A piece that took longer was stopped with the whole process, or met a garbage collection.
_LONGEST_REST_SECONDS = 0.1


class LoopShare:
    """Runs pieces of work one at a time. After each comes a rest, of at most 0.1 s.

    So all work under one share together uses at most a third of the loop's time by default,
    however many callers it has. A piece should take about a millisecond: every other call waits
    until it ends.
    """

    def __init__(
        self, *, rest: float = _REST, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """`rest`: how many times as long as its piece; `clock`: in seconds."""
        self._rest = rest
        self._clock = clock
        self._turn = asyncio.Lock()
        self._rested_at = 0.0

    async def run(self, piece: Callable[[], T]) -> T:
        """Return what `piece` returns, after the pieces that came before it."""
        async with self._turn:
            await asyncio.sleep(max(0.0, self._rested_at - self._clock()))
            began = self._clock()
            try:
                return piece()
            finally:
                ended = self._clock()
                self._rested_at = ended + min(self._rest * (ended - began), _LONGEST_REST_SECONDS)

    async def take(self, items: Iterator[T], count: int) -> AsyncIterator[list[T]]:
        """Yield all of `items`, which are taken `count` at a time: each time is a piece."""
        while part := await self.run(lambda: list(islice(items, count))):
            yield part
