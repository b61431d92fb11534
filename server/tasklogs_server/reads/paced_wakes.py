"""Wakes many feeds, a few at a time: each reads the store, and other reads wait meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from uuid import UUID

# 2,000 a second: about what one process reads. The first are woken at once.
AT_ONCE = 100
PAUSE_SECONDS = 0.05


class PacedWakes:
    """The feeds that are to be woken. `wake` wakes the feed of a task, if there is one."""

    def __init__(self, wake: Callable[[UUID], None]) -> None:
        self._wake = wake
        self._waiting: dict[UUID, None] = {}
        self._next: asyncio.TimerHandle | None = None

    def add(self, tasks: Iterable[UUID]) -> None:
        """Wake the feeds of these tasks soon. One that waits already keeps its place."""
        for task_id in tasks:
            self._waiting.setdefault(task_id)
        if self._next is None:
            self._wake_some()

    def _wake_some(self) -> None:
        self._next = None
        for task_id in list(self._waiting)[:AT_ONCE]:
            del self._waiting[task_id]
            self._wake(task_id)
        if self._waiting:
            loop = asyncio.get_running_loop()
            self._next = loop.call_later(PAUSE_SECONDS, self._wake_some)
