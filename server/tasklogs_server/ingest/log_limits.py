"""Room in a log for what an agent appends: the oldest goes, or the append is refused."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import structlog

from tasklogs_server.domain.errors import LogFull
from tasklogs_server.store.evictions import EvictionOutcome, Evictions, Holding, LogLimits
from tasklogs_server.store.records import Evicted

_LOCKED_PAUSE_SECONDS = 0.005
_MARKS = 24
"""In one retention: an entry is kept longer than it must be by no more than this part of it."""
# An agent that is refused sends the same again when it returns: neither often, nor never.
_RETRY_AT_LEAST = timedelta(minutes=1)
_RETRY_AT_MOST = timedelta(hours=1)

_log = structlog.get_logger(__name__)


class LogLimiter:
    """The limits of each log, kept by evicting what is old enough."""

    def __init__(self, evictions: Evictions, limits: LogLimits) -> None:
        self._evictions = evictions
        self._limits = limits

    @property
    def mark_every(self) -> timedelta:
        """How often it is noted where a log that changes stands."""
        return self._limits.min_retention / _MARKS

    def fits(self, rows: int, bytes_: int) -> bool:
        """Whether a log may hold so much."""
        return rows <= self._limits.rows and bytes_ <= self._limits.bytes

    async def make_room(self, task_id: UUID, rows: int, bytes_: int) -> Evicted:
        """Evict until so much more fits into the stored log; return all that it has lost.

        Raises LogFull where what is left is too young to go, TaskNotFound, StoreUnavailable.
        """
        while True:
            held = await self._evict(task_id, rows, bytes_)
            if self.fits(held.rows + rows, held.bytes + bytes_):
                return held.evicted
            if held.outcome is EvictionOutcome.NOTHING:
                raise await self._full(task_id)
            if held.outcome is EvictionOutcome.LOCKED:
                await asyncio.sleep(_LOCKED_PAUSE_SECONDS)

    async def enforce(self, task_id: UUID) -> None:
        """Bring a log within its limits, as far as what it holds is old enough.

        Raises TaskNotFound, StoreUnavailable.
        """
        while (await self._evict(task_id, 0, 0)).outcome is EvictionOutcome.EVICTED:
            pass  # each chunk is a transaction of its own, and others get their turn between two

    async def mark(self, task_id: UUID) -> bool:
        """Note where a log stands now; see Evictions.mark."""
        return await self._evictions.mark(
            task_id, every=self.mark_every, min_retention=self._limits.min_retention
        )

    async def _evict(self, task_id: UUID, rows: int, bytes_: int) -> Holding:
        held = await self._evictions.evict(task_id, self._limits, rows=rows, bytes_=bytes_)
        if held.outcome is EvictionOutcome.EVICTED:
            _log.debug("log.evicted", task=str(task_id), revision=held.evicted.revision)
        return held

    async def _full(self, task_id: UUID) -> LogFull:
        # What nobody has marked, because the server was stopped since, begins to age now.
        await self.mark(task_id)
        old_in = await self._evictions.old_in(task_id, self._limits.min_retention)
        retry_after = min(max(old_in or _RETRY_AT_MOST, _RETRY_AT_LEAST), _RETRY_AT_MOST)
        return LogFull(
            self._limits.rows, self._limits.bytes, self._limits.min_retention, retry_after
        )
