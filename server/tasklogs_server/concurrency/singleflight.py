"""Callers that ask the same thing at the same time share one run of it.

Sharing is not caching: a caller joins only a run that begins after its call, so at most one run of
a key is under way and one is next, however many callers wait, and nobody is given anything stale.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

# Before the next run begins, the calls that are already on the sockets get their turn to join it.
# The first run of a key is never delayed.
_SETTLE_TURNS = 3


class _UnderWay(Generic[T]):
    """The run of a key that has begun, and the one that is next."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.next: _Next[T] | None = None


class _Next(Generic[T]):
    """A run that has not begun, and how many wait for it."""

    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self.waiters = 0


class Shared(Generic[T]):
    """Runs of `work`, at most two per key: one under way and one next."""

    def __init__(self) -> None:
        self._under_way: dict[Hashable, _UnderWay[T]] = {}

    async def run(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """Return what a run of `work` for `key` returns that begins no earlier than this call.

        `work` of the run's first caller is the one that runs. A run that all its callers have left
        is cancelled.
        """
        current = self._under_way.get(key)
        if current is None:
            return await self._run_now(key, work)  # nobody can join it any more: no task is needed
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
            # Also where it was abandoned: only now is it really over, and the next may begin.
            run.over.set()
            if run.next is None:
                del self._under_way[key]

    def _forget_next(self, key: Hashable, current: _UnderWay[T], left: _Next[T]) -> None:
        if current.next is not left or self._under_way.get(key) is not current:
            return  # it had begun
        current.next = None
        if current.over.is_set():
            del self._under_way[key]


def _retrieve(task: asyncio.Task[T]) -> None:
    # A run that failed after its last caller left has nobody to tell.
    if not task.cancelled():
        task.exception()
