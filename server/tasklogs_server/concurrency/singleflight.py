"""Callers that ask for the same thing at the same time share one run of the work.

This is not a cache. A caller joins only a run that begins after its call, so it never gets a stale
result. For each key at most one run is under way and one is next, for any number of callers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# So many turns of the event loop pass before the next run begins. Calls that already arrived on the
# sockets can join it then. The first run of a key waits for none of them.
_SETTLE_TURNS = 3


@dataclass(slots=True)
class _UnderWay(Generic[T]):
    """The current run of a key, and the next one."""

    over: asyncio.Event = field(default_factory=asyncio.Event)
    next: _Next[T] | None = None
    task: asyncio.Task[Any] | None = None
    """The run's own task, if it has one. asyncio itself does not keep tasks alive."""


@dataclass(slots=True)
class _Next(Generic[T]):
    """A run that has not begun, and the number of callers that wait for it."""

    task: asyncio.Task[T]
    waiters: int = 0


class Singleflight(Generic[T]):
    """Runs of `work`, at most two per key: one under way and one next.

    `finishes`: a run that has begun goes on when all its callers have left. `work` must end by
    itself then. The first run of a key begins in the next turn of the event loop, so that callers
    that were woken together share it.
    """

    def __init__(self, *, finishes: bool = False) -> None:
        self._finishes = finishes
        self._under_way: dict[Hashable, _UnderWay[T]] = {}

    async def run(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """Return the result of a run for `key` that begins no earlier than this call.

        A run uses the `work` of its first caller. It is cancelled when all its callers have left,
        unless it has begun and `finishes`.
        """
        current = self._under_way.get(key)
        if current is None:
            if not self._finishes:
                # No caller can join it later, so it needs no task.
                return await self._run_now(key, work)
            current = self._under_way[key] = _UnderWay[T]()
            current.over.set()  # there is none: the next one begins at once
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
                has_begun = self._under_way.get(key) is not current
                if not (has_begun and self._finishes):
                    joined.task.cancel()
                    self._forget_next(key, current, joined)

    async def _run_after(
        self, key: Hashable, current: _UnderWay[T], work: Callable[[], Awaitable[T]]
    ) -> T:
        if not current.over.is_set():
            await current.over.wait()
            for _ in range(_SETTLE_TURNS):
                await asyncio.sleep(0)
        return await self._run_now(key, work)

    async def _run_now(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        run = self._under_way[key] = _UnderWay[T]()
        if self._finishes:
            run.task = asyncio.current_task()
        return await self._finish(key, run, work)

    async def _finish(
        self, key: Hashable, run: _UnderWay[T], work: Callable[[], Awaitable[T]]
    ) -> T:
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
