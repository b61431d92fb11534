"""Callers that ask for the same thing at the same time share one run of the work.

This is not a cache. A caller joins only a run that begins after its call, so it never gets a stale
result. For each key at most one run is under way and one is next, for any number of callers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

# So many turns of the event loop pass before the next run begins. Calls that already arrived on the
# sockets can join it then. The first run of a key is never delayed.
_SETTLE_TURNS = 3


@dataclass(slots=True)
class _UnderWay(Generic[T]):
    """The current run of a key, and the next one."""

    over: asyncio.Event = field(default_factory=asyncio.Event)
    next: _Next[T] | None = None


@dataclass(slots=True)
class _Next(Generic[T]):
    """A run that has not begun, and the number of callers that wait for it."""

    task: asyncio.Task[T]
    waiters: int = 0


class Singleflight(Generic[T]):
    """Runs of `work`, at most two per key: one under way and one next."""

    def __init__(self) -> None:
        self._under_way: dict[Hashable, _UnderWay[T]] = {}

    async def run(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """Return the result of a run for `key` that begins no earlier than this call.

        A run uses the `work` of its first caller. It is cancelled when all its callers have left.
        """
        current = self._under_way.get(key)
        if current is None:
            # No caller can join it later, so it needs no task.
            return await self._run_now(key, work)
        if current.next is None:
            current.next = _Next(asyncio.create_task(self._run_after(key, current, work)))
            current.next.task.add_done_callback(_retrieve)
        joined = current.next
        joined.waiters += 1
        try:
            return await asyncio.shield(joined.task)
        finally:
            joined.waiters -= 1
            if joined.waiters == 0 and not joined.task.done():
                joined.task.cancel()
                self._forget_next(key, current, joined)

    async def _run_after(
        self, key: Hashable, current: _UnderWay[T], work: Callable[[], Awaitable[T]]
    ) -> T:
        await current.over.wait()
        for _ in range(_SETTLE_TURNS):
            await asyncio.sleep(0)
        return await self._run_now(key, work)

    async def _run_now(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        run: _UnderWay[T] = _UnderWay()
        self._under_way[key] = run
        try:
            return await work()
        finally:
            # Only now the run is over, even if it was cancelled. The next one may begin.
            run.over.set()
            if run.next is None:
                del self._under_way[key]

    def _forget_next(self, key: Hashable, current: _UnderWay[T], left: _Next[T]) -> None:
        if current.next is not left or self._under_way.get(key) is not current:
            return  # the run has begun
        current.next = None
        if current.over.is_set():
            del self._under_way[key]


def _retrieve(task: asyncio.Task[T]) -> None:
    # If the last caller has left, no other code retrieves the exception of a failed run.
    if not task.cancelled():
        task.exception()
