"""Places that callers share: a caller has a part of them at most, and callers wait in turns."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable

_NOBODY = object()


class FairTurns:
    """`places` that are taken and given back.

    One caller holds at most `of_one` places. A free place goes to the callers that wait in turns,
    one place a turn, so a caller with a thousand calls in line delays another one by one turn. None
    is nobody's caller: the server's own work, which only `places` bounds.
    """

    def __init__(self, places: int, *, of_one: int) -> None:
        self._free = places
        self._of_one = of_one
        self._held: dict[Hashable, int] = {}
        self._lines: dict[Hashable, deque[asyncio.Future[None]]] = {}
        """Those who wait, by caller. The caller whose turn is next comes first."""
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._waiting

    def take_at_once(self, caller: Hashable) -> bool:
        """Take a place if `caller` need not wait for it. `give_back` must follow then."""
        # While places are free, only callers wait that hold as many as they may.
        if not self._free or not self._may_have_more(caller):
            return False
        self._take(caller)
        return True

    async def take(self, caller: Hashable) -> None:
        """Wait for a place. `give_back` must follow, unless this raises."""
        if self.take_at_once(caller):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(caller, deque()).append(turn)
        self._waiting += 1
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.give_back(caller)  # its turn came at the same moment
            else:
                self._forget(caller, turn)
            raise

    def give_back(self, caller: Hashable) -> None:
        """Free a place."""
        self._free += 1
        left = self._held[caller] - 1
        if left:
            self._held[caller] = left
        else:
            del self._held[caller]
        if self._waiting:
            self._next_turn()

    def _take(self, caller: Hashable) -> None:
        self._free -= 1
        self._held[caller] = self._held.get(caller, 0) + 1

    def _may_have_more(self, caller: Hashable) -> bool:
        return caller is None or self._held.get(caller, 0) < self._of_one

    def _next_turn(self) -> None:
        turn: asyncio.Future[None] | None = None
        # One that was cancelled has not run since, so it is still in line.
        while turn is None or turn.cancelled():
            caller = next((one for one in self._lines if self._may_have_more(one)), _NOBODY)
            if caller is _NOBODY:
                return
            line = self._lines.pop(caller)
            turn = line.popleft()
            self._waiting -= 1
            if line:
                self._lines[caller] = line  # behind all others
        self._take(caller)
        turn.set_result(None)

    def _forget(self, caller: Hashable, turn: asyncio.Future[None]) -> None:
        line = self._lines.get(caller)
        if line is None or turn not in line:
            return  # `_next_turn` has removed it
        self._waiting -= 1
        line.remove(turn)
        if not line:
            del self._lines[caller]
