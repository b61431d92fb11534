"""Retention: evicts from logs that are above their limits, and deletes long-paused tasks.

An append evicts as much as it needs (ingest.log_limits). This module does what no append does. It
finds logs that are above their limits because the limits were lowered, and tasks that stay paused.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import structlog

from tasklogs_server.domain.errors import StoreUnavailable, TaskNotFound
from tasklogs_server.ingest.log_limits import LogLimiter
from tasklogs_server.store.errors import concerns_one_task
from tasklogs_server.store.evictions import Evictions, LogLimits
from tasklogs_server.tasks.directory import TaskDirectory

_EVERY_SECONDS = 60.0
_SWEEP_EVERY_SECONDS = 3600.0
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
        directory: TaskDirectory,
        log_limiter: LogLimiter,
        limits: LogLimits,
        period: timedelta | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._evictions = evictions
        self._directory = directory
        self._log_limiter = log_limiter
        self._limits = limits
        self._period = period
        self._clock = clock
        self._swept_at: float | None = None

    async def run(self) -> None:
        """Work until cancelled. Work that fails is tried again in the next round."""
        while True:
            for work in (self.sweep, self.retire):
                try:
                    await work()
                except StoreUnavailable:
                    pass  # the store's monitor logs it
                except Exception:
                    _log.exception("retention.failed", work=work.__name__)
            await asyncio.sleep(_EVERY_SECONDS)

    async def sweep(self) -> None:
        """Once an hour, check all logs and evict what is above the limits."""
        now = self._clock()
        if self._swept_at is not None and now - self._swept_at < _SWEEP_EVERY_SECONDS:
            return
        await self._keep_limits()
        self._swept_at = now

    async def retire(self) -> None:
        """Delete tasks that have been paused for longer than the period, 20 at a time."""
        if self._period is not None:
            await self._directory.retire_paused(self._period, limit=_RETIRE_AT_ONCE)

    async def _keep_limits(self) -> None:
        after: UUID | None = UUID(int=0)
        while after is not None:
            past, after = await self._evictions.past_limits(self._limits, after=after)
            for task_id in past:
                try:
                    await self._log_limiter.enforce(task_id)
                except TaskNotFound:
                    continue  # the task was deleted meanwhile
                except Exception as error:  # one task's rows are bad: continue with the others
                    if not concerns_one_task(error):
                        raise
                    _log.error("log.not_evicted", task=str(task_id), error=type(error).__name__)
