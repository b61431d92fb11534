"""How many calls begin, and how many are handled at the same time. Beyond that they are refused.

A call that is admitted late is answered late, and so are all calls behind it. So a limited number
of each kind is handled. Reads and lists beyond that number wait for a short time, and their callers
take turns. All other calls are refused, and told when to try again.
"""

from __future__ import annotations

import asyncio
import enum
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from tasklogs_server.concurrency.fair_turns import FairLine, FairTurns, LineFull
from tasklogs_server.concurrency.jitter import spread
from tasklogs_server.concurrency.per_turn import PerTurn
from tasklogs_server.domain.errors import LimitExceeded
from tasklogs_server.domain.limits import Limit


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

    # Members are singletons. Enum's own, in Python, took half of the time of `enter` and `leave`.
    __hash__ = object.__hash__


_LIMITS = {
    Kind.READ: Limit.READS,
    Kind.LIST: Limit.LISTS,
    Kind.WRITE: Limit.WRITES,
    Kind.FOLLOW: Limit.FOLLOWS,
    Kind.AGENT: Limit.AGENTS,
}


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many calls of each kind may be handled at the same time."""

    begin_per_turn: int = 4
    """How many calls of all kinds may begin in one turn of the event loop."""
    beginning: int = 2000
    """Calls that wait to begin. Each takes 25 KB."""
    reads: int = 128
    """Each may hold a page. A live read that waits for its agent does not count here."""
    lists: int = 1
    """The work of Postgres for two at once doubled the time of other callers' reads."""
    queued_reads: int = 2000
    """And as many lists."""
    queue_time: timedelta = timedelta(seconds=2)
    waiting_reads: int = 10_000
    """Live reads that wait for an agent; each holds next to nothing."""
    writes: int = 256
    follows: int = 5000
    agents: int = 5000


class Admission:
    """Counts the calls that are handled."""

    def __init__(self, capacity: Capacity | None = None) -> None:
        self._capacity = capacity or Capacity()
        self._limits: dict[Kind, float] = {
            Kind.READ: self._capacity.reads,
            Kind.LIST: self._capacity.lists,
            Kind.WRITE: self._capacity.writes,
            Kind.FOLLOW: self._capacity.follows,
            Kind.AGENT: self._capacity.agents,
            Kind.UPLOAD: math.inf,
            Kind.OPERATIONS: math.inf,
        }
        self._beginning = PerTurn(
            self._capacity.begin_per_turn, waiting_at_most=self._capacity.beginning
        )
        self._handled = dict.fromkeys(Kind, 0)
        queued = self._capacity.queued_reads
        self._lists = FairTurns(self._capacity.lists, waiting_at_most=queued)
        self._queue = FairLine(queued)
        self._returning = FairLine()
        """Reads that have waited for their agent: they go before the queue."""
        self._aside = 0

    def begin(self, caller: Hashable) -> Awaitable[None] | None:
        """Let a call begin, as soon as its caller is known.

        If something is returned, the call has to wait: it may go on once that was awaited. Callers
        take turns. The wait may raise LimitExceeded.
        """
        return None if self._beginning.begin_at_once() else self._begin_later(caller)

    async def _begin_later(self, caller: Hashable) -> None:
        try:
            await self._beginning.begin(caller)
        except LineFull:
            at_most = self._capacity.beginning
            raise _too_many(Limit.BEGINNING, "calls that wait to begin", at_most) from None

    def enter(self, kind: Kind, caller: Hashable = None) -> Awaitable[None] | None:
        """Count a call; `leave` must follow.

        If something is returned, the call has to wait: it has entered once that was awaited. Raises
        LimitExceeded, and so may the wait; `leave` must not follow then. Calls that wait go on in
        turns by `caller`.
        """
        if kind is Kind.LIST:
            if self._lists.take_at_once():
                return None
            return self._in_time(kind, partial(self._lists.take, caller))
        if self._handled[kind] < self._limits[kind]:
            self._handled[kind] += 1
            return None
        if kind is not Kind.READ:
            raise self._too_many(kind)
        wait = partial(self._queue.wait, caller, missed=self._leave_read)
        return self._in_time(kind, wait)

    def leave(self, kind: Kind) -> None:
        """The call is not handled any more."""
        if kind is Kind.LIST:
            self._lists.give_back()
            return
        self._handled[kind] -= 1
        if kind is Kind.READ:
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
                wait = partial(self._returning.wait, None, missed=self._leave_read)
                await self._in_time(Kind.READ, wait)
                self._handled[Kind.READ] -= 1
        finally:
            self._handled[Kind.READ] += 1  # also if it is cancelled or refused: `leave` follows

    async def _in_time(self, kind: Kind, wait: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(self._capacity.queue_time.total_seconds()):
                await wait()
        except (TimeoutError, LineFull):
            raise self._too_many(kind) from None

    def _admit_next(self) -> None:
        while self._handled[Kind.READ] < self._limits[Kind.READ]:
            if not (self._returning.call_next() or self._queue.call_next()):
                return
            self._handled[Kind.READ] += 1

    def _leave_read(self) -> None:
        self.leave(Kind.READ)

    def _too_many(self, kind: Kind) -> LimitExceeded:
        return _too_many(_LIMITS[kind], kind.value, self._limits[kind])


def _too_many(limit: Limit, what: str, at_most: float) -> LimitExceeded:
    description = f"more than {at_most} {what} at the same time"
    return LimitExceeded(limit, "server", description, spread(0.5, 2.0))
