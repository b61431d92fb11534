"""What a server does beside answering: it deletes what is past limits.

Eviction proper happens where an append needs the room. What no append comes for is found here: logs
that are past limits which were lowered, and tasks that have been paused for long.
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
from tasklogs_server.tasks.directory import Directory

_EVERY_SECONDS = 60.0
_SWEEP_EVERY_SECONDS = 3600.0
_RETIRE_AT_ONCE = 20

_log = structlog.get_logger(__name__)


class Housekeeping:
    """The slow work of one process. `retention` None: paused tasks stay for ever."""

    def __init__(
        self,
        *,
        evictions: Evictions,
        directory: Directory,
        log_limiter: LogLimiter,
        limits: LogLimits,
        retention: timedelta | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._evictions = evictions
        self._directory = directory
        self._log_limiter = log_limiter
        self._limits = limits
        self._retention = retention
        self._clock = clock
        self._swept_at: float | None = None

    async def run(self) -> None:
        """Work until cancelled; what fails is tried again the next time."""
        while True:
            for work in (self.sweep, self.retire):
                try:
                    await work()
                except StoreUnavailable:
                    pass  # the store's watch tells
                except Exception:
                    _log.exception("housekeeping.failed", work=work.__name__)
            await asyncio.sleep(_EVERY_SECONDS)

    async def sweep(self) -> None:
        """Look at all logs, once an hour: evict what is past the limits."""
        now = self._clock()
        if self._swept_at is not None and now - self._swept_at < _SWEEP_EVERY_SECONDS:
            return
        await self._keep_limits()
        self._swept_at = now

    async def retire(self) -> None:
        """Delete tasks that have been paused for longer than the retention, a few at a time."""
        if self._retention is not None:
            await self._directory.retire_paused(self._retention, limit=_RETIRE_AT_ONCE)

    async def _keep_limits(self) -> None:
        place: UUID | None = UUID(int=0)
        while place is not None:
            past, place = await self._evictions.past_limits(self._limits, after=place)
            for task_id in past:
                try:
                    await self._log_limiter.enforce(task_id)
                except TaskNotFound:
                    continue  # deleted meanwhile
                except Exception as error:  # of one task's rows: the others' limits are kept
                    if not concerns_one_task(error):
                        raise
                    _log.error("log.not_evicted", task=str(task_id), error=type(error).__name__)
