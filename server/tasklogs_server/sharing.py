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


class _Run(Generic[T]):
    def __init__(self, task: asyncio.Task[T], after: _Run[T] | None) -> None:
        self.task = task
        self.after = after
        """The run that this one waits for; None once it has begun."""
        self.waiters = 0
        self.begun = False


class Shared(Generic[T]):
    """Runs of `work`, at most two per key: one under way and one next."""

    def __init__(self) -> None:
        self._newest: dict[Hashable, _Run[T]] = {}

    async def run(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """Return what a run of `work` for `key` returns that begins no earlier than this call.

        `work` of the run's first caller is the one that runs. A run that all its callers have left
        is cancelled.
        """
        run = self._newest.get(key)
        if run is None or run.begun:
            run = self._start(key, after=run, work=work)
        run.waiters += 1
        try:
            return await asyncio.shield(run.task)
        finally:
            run.waiters -= 1
            if run.waiters == 0 and not run.task.done():
                self._abandon(key, run)

    def _start(
        self, key: Hashable, *, after: _Run[T] | None, work: Callable[[], Awaitable[T]]
    ) -> _Run[T]:
        run: _Run[T]

        async def go() -> T:
            if after is not None:
                await asyncio.wait([after.task])
                for _ in range(_SETTLE_TURNS):
                    await asyncio.sleep(0)
            run.begun, run.after = True, None
            try:
                return await work()
            finally:
                self._forget(key, run)

        run = _Run(asyncio.create_task(go(), name=f"shared {key!r}"[:80]), after)
        # A first run takes its callers until the loop lets it begin, a turn later: none of them
        # called after.
        self._newest[key] = run
        run.task.add_done_callback(_retrieve)
        return run

    def _abandon(self, key: Hashable, run: _Run[T]) -> None:
        run.task.cancel()
        # One that has begun forgets itself once it is really over: the next must not overlap it.
        if not run.begun:
            run.begun = True  # nobody may join it any more
            self._forget(key, run)

    def _forget(self, key: Hashable, run: _Run[T]) -> None:
        if self._newest.get(key) is not run:
            return
        # A run that never began leaves the one before it under way: that is the newest again.
        if run.after is not None and not run.after.task.done():
            self._newest[key] = run.after
        else:
            del self._newest[key]


def _retrieve(task: asyncio.Task[T]) -> None:
    # A run that failed after its last caller left has nobody to tell.
    if not task.cancelled():
        task.exception()
