"""How much is under way at the same time: beyond its capacity the server refuses early.

A call that is admitted late is answered late, and so are all behind it. So only so many of each
kind are at work, reads beyond that queue for a moment, and all others are told when to come again.
"""

from __future__ import annotations

import asyncio
import enum
import random
from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from tasklogs_server.domain.errors import LimitExceeded
from tasklogs_server.domain.limits import Limit
from tasklogs_server.reads.reader import Sync


class Kind(enum.Enum):
    """What calls cost, and so what they are counted with."""

    READ = "reads"
    WRITE = "writes"
    FOLLOW = "follows"
    AGENT = "agent streams"


_KINDS = {
    "/tasklogs.v1.TaskLogs/GetTaskLogs": Kind.READ,
    "/tasklogs.v1.TaskLogs/FollowTaskLogs": Kind.FOLLOW,
    "/tasklogs.v1.Tasks/GetTask": Kind.READ,
    "/tasklogs.v1.Tasks/ListTasks": Kind.READ,
    "/tasklogs.v1.TaskAgents/Connect": Kind.AGENT,
}


_LIMITS = {
    Kind.READ: Limit.READS,
    Kind.WRITE: Limit.WRITES,
    Kind.FOLLOW: Limit.FOLLOWS,
    Kind.AGENT: Limit.AGENTS,
}


def kind_of(method: str) -> Kind:
    """Return what a method of the API is counted with."""
    return _KINDS.get(method, Kind.WRITE)


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many calls of each kind may be at work at the same time."""

    reads: int = 128
    """Each may hold a page; a live read that waits for its agent is not counted here."""
    queued_reads: int = 2000
    queue_time: timedelta = timedelta(seconds=2)
    waiting_reads: int = 10_000
    """Live reads that wait for an agent; they hold next to nothing."""
    writes: int = 256
    follows: int = 5000
    agents: int = 5000


class Admission:
    """Counts the calls that are under way."""

    def __init__(self, capacity: Capacity | None = None) -> None:
        self._capacity = capacity or Capacity()
        self._limits = {
            Kind.READ: self._capacity.reads,
            Kind.WRITE: self._capacity.writes,
            Kind.FOLLOW: self._capacity.follows,
            Kind.AGENT: self._capacity.agents,
        }
        self._under_way = dict.fromkeys(Kind, 0)
        self._queue: deque[asyncio.Future[None]] = deque()
        self._returning: deque[asyncio.Future[None]] = deque()
        """Reads that have waited for their agent: they come before the queue."""
        self._waiting = 0

    def enter(self, kind: Kind) -> Awaitable[None] | None:
        """Count a call; `leave` must follow. What it returns must be awaited, and then has entered.

        Raises LimitExceeded.
        """
        if self._under_way[kind] < self._limits[kind]:
            self._under_way[kind] += 1
            return None
        if kind is not Kind.READ or len(self._queue) >= self._capacity.queued_reads:
            raise _too_many(_LIMITS[kind], kind.value, self._limits[kind])
        return self._take_turn(self._queue)

    def leave(self, kind: Kind) -> None:
        """The call is at work no longer."""
        self._under_way[kind] -= 1
        if kind is Kind.READ:
            self._admit_next()

    def place(self, kind: Kind) -> Place:
        """Return what a call enters with and leaves with: one serves all calls of the kind."""
        return Place(self, kind)

    def setting_aside(self, sync: Sync) -> Sync:
        """Return a sync during which the read that waits for it does not count as one at work."""

        async def wait(
            task_id: UUID, *, max_staleness: timedelta | None, time_left: timedelta | None
        ) -> datetime:
            if self._waiting >= self._capacity.waiting_reads:
                raise _too_many(Limit.WAITING_READS, "live reads", self._capacity.waiting_reads)
            self._waiting += 1
            self.leave(Kind.READ)
            stays = True
            try:
                return await sync(task_id, max_staleness=max_staleness, time_left=time_left)
            except asyncio.CancelledError:
                stays = False
                raise
            finally:
                try:
                    await self._come_back(stays=stays)
                finally:
                    self._waiting -= 1

        return wait

    async def _come_back(self, *, stays: bool) -> None:
        """Count a read at work again, in its turn: one commit may end the waiting of thousands."""
        try:
            if stays and self._under_way[Kind.READ] >= self._limits[Kind.READ]:
                await self._take_turn(self._returning)
                self._under_way[Kind.READ] -= 1
        finally:
            self._under_way[Kind.READ] += 1  # also where it leaves: `leave` follows

    async def _take_turn(self, queue: deque[asyncio.Future[None]]) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            async with asyncio.timeout(self._capacity.queue_time.total_seconds()):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.leave(Kind.READ)  # it came all the same, just now
            elif turn in queue:  # or its place was passed over already: it was given up
                queue.remove(turn)
            if isinstance(error, TimeoutError):
                at_most = self._limits[Kind.READ]
                raise _too_many(Limit.READS, Kind.READ.value, at_most) from None
            raise

    def _admit_next(self) -> None:
        while self._under_way[Kind.READ] < self._limits[Kind.READ]:
            queue = self._returning or self._queue
            if not queue:
                return
            turn = queue.popleft()
            if not turn.done():
                self._under_way[Kind.READ] += 1
                turn.set_result(None)


class Place:
    """A call is counted as long as the block lasts. Raises LimitExceeded."""

    def __init__(self, admission: Admission, kind: Kind) -> None:
        self._admission = admission
        self._kind = kind

    async def __aenter__(self) -> None:
        turn = self._admission.enter(self._kind)
        if turn is not None:
            await turn

    async def __aexit__(self, *_: object) -> None:
        self._admission.leave(self._kind)


def _too_many(limit: Limit, what: str, at_most: int) -> LimitExceeded:
    # Those who were refused together must not come back together.
    later = timedelta(seconds=random.uniform(0.5, 2.0))
    return LimitExceeded(limit, "server", f"more than {at_most} {what} at the same time", later)
