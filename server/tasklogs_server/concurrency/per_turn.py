"""What may begin in one turn of the event loop. The rest waits, and its callers take turns."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Hashable

from tasklogs_server.concurrency.fair_turns import FairLine


class PerTurn:
    """At most `at_most` of the calls that ask here begin in each turn of the loop.

    A turn of the loop is as long as the work in it: if all calls that have arrived began at once,
    those of one caller would make it long for all others. No call waits while fewer arrive than may
    begin. At most `waiting_at_most` wait; see FairLine.
    """

    def __init__(self, at_most: int, *, waiting_at_most: float = math.inf) -> None:
        self._at_most = at_most
        self._left = at_most
        self._line = FairLine(waiting_at_most)
        self._is_scheduled = False
        """Whether `_next_turn` is. An idle loop has no turns."""

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return len(self._line)

    def begin_at_once(self) -> bool:
        """Begin if there is room in this turn. Those that wait go first."""
        if not self._left or len(self._line):
            return False
        self._left -= 1
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._next_turn)
        return True

    async def begin(self, caller: Hashable) -> None:
        """Wait for a place in this turn or a later one. Raises LineFull."""
        if not self.begin_at_once():
            await self._line.wait(caller, missed=_nothing)

    def _next_turn(self) -> None:
        self._left = self._at_most
        while self._left and self._line.call_next():
            self._left -= 1
        self._is_scheduled = self._left < self._at_most
        if self._is_scheduled:
            asyncio.get_running_loop().call_soon(self._next_turn)


def _nothing() -> None:
    """Its place was in a turn that is over."""
