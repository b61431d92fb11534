"""Callers that wait in turns, and places that they share."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Hashable

_Turn = asyncio.Future[bool]


class LineFull(Exception):
    """There is no room in the line for one more call of this caller."""


class FairLine:
    """Calls that wait. Their callers take turns, so a thousand calls of one count as one.

    At most `at_most` calls wait. In a full line the caller with the most calls makes room: its last
    call is refused.
    """

    def __init__(self, at_most: float = math.inf) -> None:
        self._at_most = at_most
        self._turns: dict[Hashable, deque[_Turn]] = {}
        """The caller whose turn is next comes first. Each turn says whether the call may go on."""
        self._length = 0

    def __len__(self) -> int:
        return self._length

    async def wait(self, caller: Hashable, *, missed: Callable[[], None]) -> None:
        """Wait until `call_next` calls this call. Raises LineFull.

        `missed` is called if that happened, but the wait was cancelled at the same moment.
        """
        if self._length >= self._at_most:
            self._make_room_for(caller)
        turn: _Turn = asyncio.get_running_loop().create_future()
        self._turns.setdefault(caller, deque()).append(turn)
        self._length += 1
        try:
            may_go = await turn
        except BaseException:
            if not turn.done() or turn.cancelled():
                self._leave(caller, turn)
            elif turn.result():
                missed()
            raise
        if not may_go:
            raise LineFull

    def call_next(self) -> bool:
        """End the wait of the call that is next. False: there is none."""
        while self._length:
            caller = next(iter(self._turns))
            turns = self._turns.pop(caller)
            turn = turns.popleft()
            self._length -= 1
            if turns:
                self._turns[caller] = turns  # behind all others
            if not turn.done():  # one that was cancelled has not run since
                turn.set_result(True)
                return True
        return False

    def _make_room_for(self, caller: Hashable) -> None:
        longest: deque[_Turn] = max(self._turns.values(), key=len, default=deque())
        if len(longest) <= len(self._turns.get(caller, ())) + 1:
            raise LineFull
        turn = longest.pop()
        self._length -= 1
        if not turn.done():
            turn.set_result(False)

    def _leave(self, caller: Hashable, turn: _Turn) -> None:
        turns = self._turns.get(caller, deque())
        if turn in turns:
            turns.remove(turn)
            self._length -= 1
            if not turns:
                del self._turns[caller]


class FairTurns:
    """A number of places that are taken and given back. Callers wait for them in a FairLine."""

    def __init__(self, places: int, *, waiting_at_most: float = math.inf) -> None:
        self._free = places
        self._line = FairLine(waiting_at_most)

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return len(self._line)

    def take_at_once(self) -> bool:
        """Take a place if one is free. `give_back` must follow then."""
        # While one is free, nobody waits.
        if not self._free:
            return False
        self._free -= 1
        return True

    async def take(self, caller: Hashable) -> None:
        """Wait for a place. `give_back` must follow, unless this raises. Raises LineFull."""
        if not self.take_at_once():
            await self._line.wait(caller, missed=self.give_back)

    def give_back(self) -> None:
        """Free a place."""
        if not self._line.call_next():
            self._free += 1
