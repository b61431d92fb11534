"""How many calls are handled at the same time. Beyond its capacity the server refuses early.

A call that is admitted late is answered late, and so are all calls behind it. So a limited number
of each kind is handled. Reads and lists beyond that number wait for a short time, and their callers
take turns. All other calls are refused, and told when to try again.
"""

from __future__ import annotations

import asyncio
import enum
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from tasklogs_server.concurrency.fair_turns import FairLine, FairTurns, Turn
from tasklogs_server.concurrency.jitter import spread
from tasklogs_server.domain.errors import LimitExceeded
from tasklogs_server.domain.limits import Limit

# Callers who come several times a second are there all the time.
_MOMENTS_SECONDS = 0.2


class Kind(enum.Enum):
    """The kinds of calls, by what they cost. Each kind is counted by itself."""

    READ = "reads"
    LIST = "lists"
    """Lists of tasks: each may cost as much as a hundred reads."""
    WRITE = "writes"
    FOLLOW = "follows"
    AGENT = "agent streams"
    UPLOAD = "uploads"
    """Whole conversations: they have turns and places of their own (`UploadQueue`)."""
    OPERATIONS = "operations"
    """Health, reflection, channelz: never refused here."""


_LIMITS = {
    Kind.READ: Limit.READS,
    Kind.WRITE: Limit.WRITES,
    Kind.FOLLOW: Limit.FOLLOWS,
    Kind.AGENT: Limit.AGENTS,
}


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many calls of each kind may be handled at the same time."""

    reads: int = 128
    """Each may hold a page. A live read that waits for its agent does not count here."""
    queued_reads: int = 2000
    queue_time: timedelta = timedelta(seconds=2)
    waiting_reads: int = 10_000
    """Live reads that wait for an agent; each holds next to nothing."""
    lists: int = 4
    lists_of_one: int = 2
    """Of one caller."""
    queued_lists_of_one: int = 200
    writes: int = 256
    follows: int = 5000
    agents: int = 5000


class Admission:
    """Counts the calls that are handled."""

    def __init__(self, capacity: Capacity | None = None) -> None:
        self._capacity = capacity or Capacity()
        self._limits: dict[Kind, float] = {
            Kind.READ: self._capacity.reads,
            Kind.WRITE: self._capacity.writes,
            Kind.FOLLOW: self._capacity.follows,
            Kind.AGENT: self._capacity.agents,
            Kind.LIST: float("inf"),  # they have turns of their own
            Kind.UPLOAD: float("inf"),
            Kind.OPERATIONS: float("inf"),
        }
        self._handled = dict.fromkeys(Kind, 0)
        self._lists = FairTurns(self._capacity.lists, of_one=self._capacity.lists_of_one)
        self._queue = FairLine()
        self._returning: deque[Turn] = deque()
        """Reads that have waited for their agent: they go before the queue."""
        self._aside = 0
        self._came_at = -math.inf
        """When the last call came that is not a list."""

    def is_quiet(self) -> bool:
        """Whether no call but lists is handled now, or came in the last moments.

        Follows and agent streams do not count: they are open all the time.
        """
        if self._handled[Kind.READ] or self._handled[Kind.WRITE]:
            return False
        return time.monotonic() - self._came_at > _MOMENTS_SECONDS

    def enter(self, kind: Kind, caller: Hashable = None) -> Awaitable[None] | None:
        """Count a call; `leave` must follow.

        If something is returned, the call has to wait: it has entered once that was awaited. Raises
        LimitExceeded, and so may the wait; `leave` must not follow then.
        """
        if kind is Kind.LIST:
            return None if self._lists.take_at_once(caller) else self._wait_for_a_list(caller)
        self._came_at = time.monotonic()
        if self._handled[kind] < self._limits[kind]:
            self._handled[kind] += 1
            return None
        if kind is not Kind.READ or len(self._queue) >= self._capacity.queued_reads:
            raise _too_many(_LIMITS[kind], kind.value, self._limits[kind])
        return self._wait_in_the_queue(caller)

    def leave(self, kind: Kind, caller: Hashable = None) -> None:
        """The call is not handled any more."""
        if kind is Kind.LIST:
            self._lists.give_back(caller)
            return
        self._handled[kind] -= 1
        if self._queue or self._returning:
            self._admit_next()

    @asynccontextmanager
    async def aside(self) -> AsyncIterator[None]:
        """Within the block, a read that has entered waits for its agent, and does not count.

        Raises LimitExceeded: at the start, if too many reads wait, and at the end, if its turn to
        come back does not come in time.
        """
        if self._aside >= self._capacity.waiting_reads:
            raise _too_many(Limit.WAITING_READS, "live reads", self._capacity.waiting_reads)
        self._aside += 1
        self.leave(Kind.READ)
        stays = True
        try:
            yield
        except asyncio.CancelledError:
            stays = False
            raise
        finally:
            try:
                await self._come_back(stays=stays)
            finally:
                self._aside -= 1

    async def _come_back(self, *, stays: bool) -> None:
        """Count a read again, in its turn: one commit may end the waiting of thousands."""
        try:
            if stays and self._handled[Kind.READ] >= self._limits[Kind.READ]:
                turn: Turn = asyncio.get_running_loop().create_future()
                self._returning.append(turn)
                await self._wait_for_turn(turn)
                self._handled[Kind.READ] -= 1
        finally:
            self._handled[Kind.READ] += 1  # also if it is cancelled or refused: `leave` follows

    async def _wait_in_the_queue(self, caller: Hashable) -> None:
        turn = self._queue.add(caller)
        try:
            await self._wait_for_turn(turn)
        finally:
            self._queue.leave(caller, turn)

    async def _wait_for_turn(self, turn: Turn) -> None:
        try:
            async with asyncio.timeout(self._capacity.queue_time.total_seconds()):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.leave(Kind.READ)  # its turn came at the same moment
            else:
                turn.cancel()  # `_admit_next` passes it over
            if isinstance(error, TimeoutError):
                at_most = self._limits[Kind.READ]
                raise _too_many(Limit.READS, Kind.READ.value, at_most) from None
            raise

    async def _wait_for_a_list(self, caller: Hashable) -> None:
        if self._lists.waiting_of(caller) >= self._capacity.queued_lists_of_one:
            raise self._too_many_lists()
        try:
            async with asyncio.timeout(self._capacity.queue_time.total_seconds()):
                await self._lists.take(caller)
        except TimeoutError:
            raise self._too_many_lists() from None

    def _too_many_lists(self) -> LimitExceeded:
        of_one, of_all = self._capacity.lists_of_one, self._capacity.lists
        description = (
            f"more than {of_one} lists of one caller, or {of_all} of all, at the same time"
        )
        return LimitExceeded(Limit.LISTS, "caller", description, spread(0.5, 2.0))

    def _admit_next(self) -> None:
        while self._handled[Kind.READ] < self._limits[Kind.READ]:
            turn = self._next_turn()
            if turn is None:
                return
            if not turn.done():
                self._handled[Kind.READ] += 1
                turn.set_result(None)

    def _next_turn(self) -> Turn | None:
        if self._returning:
            return self._returning.popleft()
        waiting = self._queue.take(lambda _: True)
        return None if waiting is None else waiting[1]


def _too_many(limit: Limit, what: str, at_most: float) -> LimitExceeded:
    description = f"more than {at_most} {what} at the same time"
    return LimitExceeded(limit, "server", description, spread(0.5, 2.0))
