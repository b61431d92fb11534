"""Callers that wait in turns, and places that they share."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable

Turn = asyncio.Future[None]


class FairLine:
    """Who waits, by caller. The callers take turns, so a thousand calls of one count as one.

    Each call that waits awaits a `Turn`.
    """

    def __init__(self) -> None:
        self._turns: dict[Hashable, deque[Turn]] = {}
        """The caller whose turn is next comes first."""
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def length_of(self, caller: Hashable) -> int:
        """Return how many calls of one caller wait."""
        return len(self._turns.get(caller, ()))

    def add(self, caller: Hashable) -> Turn:
        """Wait in line."""
        turn: Turn = asyncio.get_running_loop().create_future()
        self._turns.setdefault(caller, deque()).append(turn)
        self._length += 1
        return turn

    def take(self, may_go: Callable[[Hashable], bool]) -> tuple[Hashable, Turn] | None:
        """Remove who is next among the callers that may go. None: nobody."""
        while self._length:
            for caller in self._turns:
                if may_go(caller):
                    break
            else:
                return None
            turns = self._turns.pop(caller)
            turn = turns.popleft()
            self._length -= 1
            if turns:
                self._turns[caller] = turns  # behind all others
            if not turn.done():  # one that was cancelled has not run since
                return caller, turn
        return None

    def leave(self, caller: Hashable, turn: Turn) -> None:
        """Remove a turn, if it is still in the line."""
        turns = self._turns.get(caller, deque())
        if turn in turns:
            turns.remove(turn)
            self._length -= 1
            if not turns:
                del self._turns[caller]


class FairTurns:
    """`places` that are taken and given back. Callers wait for them in a FairLine.

    One caller holds at most `of_one` places. None is nobody's caller: the server's own work, which
    only `places` bounds.
    """

    def __init__(self, places: int, *, of_one: int) -> None:
        self._free = places
        self._of_one = of_one
        self._held: dict[Hashable, int] = {}
        self._line = FairLine()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._line)

    def waiting_of(self, caller: Hashable) -> int:
        """Return how many calls of one caller wait."""
        return self._line.length_of(caller)

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
        turn = self._line.add(caller)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.give_back(caller)  # its turn came at the same moment
            else:
                self._line.leave(caller, turn)
            raise

    def give_back(self, caller: Hashable) -> None:
        """Free a place."""
        self._free += 1
        left = self._held[caller] - 1
        if left:
            self._held[caller] = left
        else:
            del self._held[caller]
        goes = self._line.take(self._may_have_more) if self._line else None
        if goes is not None:
            caller, turn = goes
            self._take(caller)
            turn.set_result(None)

    def _take(self, caller: Hashable) -> None:
        self._free -= 1
        self._held[caller] = self._held.get(caller, 0) + 1

    def _may_have_more(self, caller: Hashable) -> bool:
        return caller is None or self._held.get(caller, 0) < self._of_one
