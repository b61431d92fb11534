"""Tasks on which work failed: each is set aside for a while, so that no other task waits for it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Generic, TypeVar
from uuid import UUID

T = TypeVar("T")

_FIRST_SECONDS = 1.0
_LONGEST_SECONDS = 600.0
_MAX_TASKS = 10_000


class SetAside(Generic[T]):
    """Tasks that must not be tried now, each with what is needed to try it again.

    The time until the next attempt doubles with each failure, from one second to ten minutes. At
    most 10,000 tasks are held. Beyond that, those that are due first are forgotten.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` returns seconds."""
        self._clock = clock
        self._queue: list[tuple[float, int, UUID, T]] = []
        self._numbers = itertools.count()
        self._waiting: set[UUID] = set()
        self._seconds: dict[UUID, float] = {}

    def __len__(self) -> int:
        """How many tasks are set aside."""
        return len(self._queue)

    def __contains__(self, task_id: UUID) -> bool:
        """Whether the task is set aside."""
        return task_id in self._waiting

    def add(self, task_id: UUID, item: T) -> float:
        """Set a task aside that is not. Return for how many seconds."""
        if len(self._queue) >= _MAX_TASKS:
            self.forget(self._pop()[2])
        seconds = min(2 * self._seconds.get(task_id, _FIRST_SECONDS / 2), _LONGEST_SECONDS)
        self._seconds[task_id] = seconds
        self._waiting.add(task_id)
        due = self._clock() + seconds
        heapq.heappush(self._queue, (due, next(self._numbers), task_id, item))
        return seconds

    def pop_due(self) -> list[T]:
        """Remove and return those that may be tried again. A further failure still counts as one.

        Call `forget` with each that has not failed again.
        """
        now = self._clock()
        due = []
        while self._queue and self._queue[0][0] <= now:
            due.append(self._pop()[3])
        return due

    def next_in(self) -> float | None:
        """Return in how many seconds the next one is due. None: there is none."""
        return max(0.0, self._queue[0][0] - self._clock()) if self._queue else None

    def forget(self, task_id: UUID) -> None:
        """Forget the failures of a task that is not set aside, or that need not be tried again."""
        self._seconds.pop(task_id, None)

    def _pop(self) -> tuple[float, int, UUID, T]:
        first = heapq.heappop(self._queue)
        self._waiting.remove(first[2])
        return first
