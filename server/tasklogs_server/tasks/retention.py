"""Retention: evicts from logs that are past their limits, and deletes tasks paused for long.

An append evicts what it needs space for (ingest.log_limits). What no append comes for is found
here: logs past limits that were lowered, and tasks that stay paused.

A mark says how far a log had come at some time. Entries up to an old mark are old, and only those
may be evicted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import structlog

from tasklogs_server.bus.local import LocalBus
from tasklogs_server.bus.notes import Moved, Note
from tasklogs_server.domain.errors import StoreUnavailable, TaskNotFound
from tasklogs_server.ingest.log_limits import Room
from tasklogs_server.store.errors import concerns_one_task
from tasklogs_server.store.evictions import Evictions, LogLimits
from tasklogs_server.store.tasks import TaskStore
from tasklogs_server.tasks.directory import TaskDirectory

_EVERY_SECONDS = 60.0
_SWEEP_EVERY_SECONDS = 3600.0
_MARK_AT_ONCE = 1000
_RETIRE_AT_ONCE = 20

_log = structlog.get_logger(__name__)


class Retention:
    """The retention work of one process.

    `period`: how long a task may stay paused before it is deleted; None: indefinitely.
    """

    def __init__(
        self,
        *,
        evictions: Evictions,
        tasks: TaskStore,
        directory: TaskDirectory,
        room: Room,
        limits: LogLimits,
        period: timedelta | None,
        bus: LocalBus,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._evictions = evictions
        self._tasks = tasks
        self._directory = directory
        self._room = room
        self._limits = limits
        self._period = period
        self._clock = clock
        self._moved: set[UUID] = set()
        self._marked_at: dict[UUID, float] = {}
        """When a task was marked, for tasks marked less than one interval of marks ago."""
        self._swept_at: float | None = None
        bus.listen(self._noted)

    async def run(self) -> None:
        """Work until cancelled. What fails is tried again in the next round."""
        while True:
            for work in (self.mark_moved, self.sweep, self.retire):
                try:
                    await work()
                except StoreUnavailable:
                    pass  # the store's watch logs it
                except Exception:
                    _log.exception("retention.failed", work=work.__name__)
            await asyncio.sleep(self._pause_seconds())

    async def mark_moved(self) -> None:
        """Mark the logs that have changed, each at most once per interval of marks."""
        now, every = self._clock(), self._room.mark_every.total_seconds()
        self._marked_at = {
            task_id: at for task_id, at in self._marked_at.items() if now - at < every
        }
        for task_id in self._moved - self._marked_at.keys():
            self._moved.discard(task_id)  # first: the log may change again meanwhile
            is_marked = False
            try:
                is_marked = await self._mark(task_id)
            finally:
                if not is_marked:  # a commit held the head, or another server marked the log
                    self._moved.add(task_id)
            if is_marked:
                self._marked_at[task_id] = now

    async def sweep(self) -> None:
        """Look at all logs, once an hour: evict what is past the limits, mark what has no mark."""
        now = self._clock()
        if self._swept_at is not None and now - self._swept_at < _SWEEP_EVERY_SECONDS:
            return
        await self._keep_limits()
        if self._period is not None:
            for task_id in await self._tasks.paused_without_mark(limit=_MARK_AT_ONCE):
                await self._mark(task_id)
        self._swept_at = now

    async def retire(self) -> None:
        """Delete tasks that have been paused for longer than the period, 20 at a time."""
        if self._period is not None:
            await self._directory.retire_paused(self._period, limit=_RETIRE_AT_ONCE)

    async def _keep_limits(self) -> None:
        place: UUID | None = UUID(int=0)
        while place is not None:
            past, place = await self._evictions.past_limits(self._limits, after=place)
            for task_id in past:
                try:
                    await self._room.keep(task_id)
                except TaskNotFound:
                    continue  # the task was deleted meanwhile
                except Exception as error:  # one task's rows are bad: go on with the others
                    if not concerns_one_task(error):
                        raise
                    _log.error("log.not_evicted", task=str(task_id), error=type(error).__name__)

    async def _mark(self, task_id: UUID) -> bool:
        try:
            return await self._room.mark(task_id)
        except Exception as error:  # one task's rows are bad: go on with the others
            if not concerns_one_task(error):
                raise
            _log.error("log.not_marked", task=str(task_id), error=type(error).__name__)
            return False

    def _noted(self, note: Note) -> None:
        if isinstance(note, Moved) and note.commit is not None:
            self._moved.add(note.task_id)

    def _pause_seconds(self) -> float:
        return min(_EVERY_SECONDS, max(1.0, self._room.mark_every.total_seconds()))
