"""How many uploads in parts are held at the same time. A slow sender makes room for another one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tasklogs_server.concurrency.jitter import spread
from tasklogs_server.domain.errors import LimitExceeded
from tasklogs_server.domain.limits import Limit

T = TypeVar("T")

# While there is room, a sender on a slow line has all the time of TASKLOGS_UPLOAD_TIMEOUT.
_SLOW_BYTES_PER_SECOND = 64 * 1024
_GRACE_SECONDS = 5.0


class UploadPlaces:
    """Places of uploads in parts: each upload may hold a whole conversation.

    If all are taken, a new upload takes that of the slowest sender, if that one sends less than
    64 KiB per second. Four senders of a byte now and then would otherwise keep all others out.
    """

    def __init__(self, limit: int, *, clock: Callable[[], float] | None = None) -> None:
        """`clock`: in seconds; the loop's by default."""
        self._limit = limit
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._places: list[Place] = []

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Lend a place for the block. Raises LimitExceeded if there is none."""
        if len(self._places) >= self._limit:
            self._make_room()
        place = Place(self._clock, self._free)
        self._places.append(place)
        try:
            yield place
        finally:
            place.leave()

    def _free(self, place: Place) -> None:
        if place in self._places:
            self._places.remove(place)

    def _make_room(self) -> None:
        now = self._clock()
        slow = [one for one in self._places if one.is_slow(now)]
        if not slow:
            what = f"more than {self._limit} uploads at the same time"
            raise LimitExceeded(Limit.UPLOADS, "server", what, spread(0.5, 2.0))
        slowest = min(slow, key=lambda one: one.bytes_per_second(now))
        self._places.remove(slowest)
        slowest.give_up()


class Place:
    """The place of one upload, and how fast its parts arrive."""

    def __init__(self, clock: Callable[[], float], free: Callable[[Place], None]) -> None:
        self._clock = clock
        self._free = free
        self._waited_seconds = 0.0
        self._waits_since: float | None = None
        self._received_bytes = 0
        self._waiting: asyncio.Timeout | None = None
        self._is_complete = False
        self._is_given_up = False

    async def next_part(self, arrive: Callable[[], Awaitable[T]]) -> T:
        """Return the next part, for which `arrive` waits.

        Raises LimitExceeded if another upload has taken this place.
        """
        if self._is_given_up:
            raise _gave_way()
        # Without a deadline: `give_up` sets one.
        self._waiting = asyncio.timeout(None)
        self._waits_since = self._clock()
        try:
            async with self._waiting:
                return await arrive()
        except TimeoutError:
            if not self._is_given_up:
                raise
            raise _gave_way() from None
        finally:
            self._waited_seconds = self._waited(self._clock())
            self._waits_since = self._waiting = None

    def received(self, size_bytes: int) -> None:
        """Count a part that has arrived."""
        self._received_bytes += size_bytes

    def complete(self) -> None:
        """Keep the place from now on: all parts have arrived."""
        self._is_complete = True

    def leave(self) -> None:
        """Leave the place to others: the upload holds no conversation any more."""
        self._free(self)

    def is_slow(self, now: float) -> bool:
        """Whether its sender is so slow that another upload may take the place."""
        if self._is_complete or self._waited(now) < _GRACE_SECONDS:
            return False
        return self.bytes_per_second(now) < _SLOW_BYTES_PER_SECOND

    def bytes_per_second(self, now: float) -> float:
        """How fast its parts have arrived until now."""
        return self._received_bytes / max(self._waited(now), 0.001)

    def _waited(self, now: float) -> float:
        """How long it waited for its sender. The time in which parts are decoded does not count."""
        waits_seconds = 0.0 if self._waits_since is None else now - self._waits_since
        return self._waited_seconds + waits_seconds

    def give_up(self) -> None:
        """End the wait for the next part."""
        self._is_given_up = True
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())


def _gave_way() -> LimitExceeded:
    what = "it is slow, and another upload needs its place"
    return LimitExceeded(Limit.UPLOADS, "upload", what, spread(2.0, 10.0))
