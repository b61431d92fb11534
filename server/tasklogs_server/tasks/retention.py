"""Retention: evicts from logs that are above their limits, and deletes long-paused tasks.

An append evicts as much as it needs (ingest.log_limits). This module does what no append does. It
finds logs that are above their limits because the limits were lowered, and tasks that stay paused.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from uuid import UUID

import structlog

from tasklogs_server.domain.errors import StoreUnavailable, TaskNotFound
from tasklogs_server.domain.status import Facts, TaskStatus, derive
from tasklogs_server.ingest.log_limits import LogLimiter
from tasklogs_server.store.errors import concerns_one_task, is_row_held
from tasklogs_server.store.evictions import Evictions, LogLimits
from tasklogs_server.store.retirements import OLDEST, Looked, PausedPosition, Retirements
from tasklogs_server.tasks.pace import Pace
from tasklogs_server.tasks.purge import Purge
from tasklogs_server.tasks.set_aside import SetAside

_EVERY_SECONDS = 60.0
_SWEEP_EVERY_SECONDS = 3600.0
# A look and a retirement lock so many tasks at once, for some milliseconds.
_LOOK_TASKS = 200
_RETIRE_TASKS = 20
_MAX_LOCKED = 1_000
_WAITS_FOR_LONG_SECONDS = 64.0

_log = structlog.get_logger(__name__)


class Retention:
    """The retention work of one process.

    `period`: how long a task may stay paused before it is deleted; None: indefinitely.
    """

    def __init__(
        self,
        *,
        evictions: Evictions,
        retirements: Retirements,
        purge: Purge,
        log_limiter: LogLimiter,
        limits: LogLimits,
        period: timedelta | None,
        pace: Pace,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._evictions = evictions
        self._retirements = retirements
        self._purge = purge
        self._log_limiter = log_limiter
        self._limits = limits
        self._period = period
        self._pace = pace
        self._clock = clock
        self._swept_at: float | None = None
        self._locked: list[UUID] = []
        """Logs that a sweep could not check, because another transaction had locked them."""
        self._set_aside: SetAside[UUID] = SetAside(clock)
        self.backlog = 0
        """How many tasks the retirement has to look at. Counted before and after each round."""

    async def run(self) -> None:
        """Work until cancelled. Work that fails is tried again in the next round.

        Neither kind of work waits for the other.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(_repeat("sweep", lambda: self.sweep()))
            group.create_task(_repeat("retire", lambda: self.retire()))

    async def sweep(self) -> None:
        """Once an hour, check all logs and evict what is above the limits.

        Until then, try again with logs that another transaction had locked.
        """
        now = self._clock()
        if self._swept_at is not None and now - self._swept_at < _SWEEP_EVERY_SECONDS:
            locked, self._locked = self._locked, []
            for task_id in locked:
                await self._keep_limits(task_id)
            return
        self._locked = []
        after: UUID | None = UUID(int=0)
        while after is not None:
            past, after = await self._evictions.past_limits(self._limits, after=after)
            for task_id in past:
                await self._keep_limits(task_id)
        self._swept_at = now

    async def retire(self) -> None:
        """Delete all tasks that have been paused for longer than the period."""
        if self._period is None:
            return
        self.backlog = await self._retirements.count(self._period)
        retried = self._set_aside.pop_due()
        position: PausedPosition | None = OLDEST
        while position is not None:
            began = self._clock()
            looked = await self._look(position, self._period)
            position = looked.next_position
            await self._rest_since(began)
            due = [task_id for task_id in looked.due if task_id not in self._set_aside]
            for first in range(0, len(due), _RETIRE_TASKS):
                began = self._clock()
                await self._retire(due[first : first + _RETIRE_TASKS], self._period)
                await self._rest_since(began)
        for task_id in retried:
            if task_id not in self._set_aside:
                self._set_aside.forget(task_id)
        self.backlog = await self._retirements.count(self._period)

    async def _look(self, position: PausedPosition, period: timedelta) -> Looked:
        try:
            return await self._retirements.look(period, position, limit=_LOOK_TASKS)
        except Exception as error:
            if not concerns_one_task(error):
                raise
        # One task's rows are bad: look at each alone.
        listed = await self._retirements.list_(period, position, limit=_LOOK_TASKS)
        due = [one for _, one in listed if await self._is_due(one, period)]
        return Looked(due, listed[-1] if len(listed) == _LOOK_TASKS else None)

    async def _is_due(self, task_id: UUID, period: timedelta) -> bool:
        if task_id in self._set_aside:
            return False
        try:
            return await self._retirements.look_at(task_id, period)
        except Exception as error:
            self._refused(task_id, error)
            self._put_aside(task_id)
            return False

    async def _retire(self, tasks: Sequence[UUID], period: timedelta) -> None:
        deleted = await self._deleted_of(tasks, period)
        for task_id in deleted:
            _log.info("task.retired", task=str(task_id))
            self._purge.deleted(task_id)
        for task_id in set(tasks).difference(deleted):
            self._put_aside(task_id)

    async def _deleted_of(self, tasks: Sequence[UUID], period: timedelta) -> Sequence[UUID]:
        try:
            return await self._retirements.retire(tasks, period, is_paused=_is_paused)
        except Exception as error:
            if len(tasks) == 1 or not concerns_one_task(error):
                self._refused(tasks[0], error)
                return ()
        # One task's rows are bad: delete each alone.
        return [one for task in tasks for one in await self._deleted_of([task], period)]

    def _refused(self, task_id: UUID, error: Exception) -> None:
        if not concerns_one_task(error):
            raise error
        if not is_row_held(error):
            _log.error("task.not_retired", task=str(task_id), error=type(error).__name__)

    def _put_aside(self, task_id: UUID) -> None:
        if self._set_aside.add(task_id, task_id) == _WAITS_FOR_LONG_SECONDS:
            _log.warning("task.blocked", task=str(task_id), work="retire")

    async def _rest_since(self, began: float) -> None:
        await asyncio.sleep(self._pace.rest(self._clock() - began))

    async def _keep_limits(self, task_id: UUID) -> None:
        is_done = True
        try:
            is_done = await self._log_limiter.enforce(task_id)
        except TaskNotFound:
            pass  # the task was deleted meanwhile
        except Exception as error:  # one task's rows are bad: continue with the others
            if not concerns_one_task(error):
                raise
            is_done = not is_row_held(error)
            if is_done:
                _log.error("log.not_evicted", task=str(task_id), error=type(error).__name__)
        # Beyond the limit, the next sweep finds it.
        if not is_done and len(self._locked) < _MAX_LOCKED:
            self._locked.append(task_id)


async def _repeat(name: str, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except StoreUnavailable:
            pass  # the store's monitor logs it
        except Exception:
            _log.exception("retention.failed", work=name)
        await asyncio.sleep(_EVERY_SECONDS)


def _is_paused(facts: Facts) -> bool:
    return derive(facts).status is TaskStatus.PAUSED
