"""The limits of each log: its size, and how many epochs it may open."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import structlog

from tasklogs_server.domain.errors import LimitExceeded, LogFull
from tasklogs_server.domain.limits import Limit
from tasklogs_server.store.errors import row_held
from tasklogs_server.store.evictions import EvictionOutcome, Evictions, Holding, LogLimits
from tasklogs_server.store.records import Evicted
from tasklogs_server.store.sessions import SessionStore
from tasklogs_server.store.task_transactions import retry_while_held

_HELD_WAIT = timedelta(minutes=1)
# A refused agent sends the same append again when it returns. It should not return often.
_RETRY_AT_LEAST = timedelta(minutes=1)
_RETRY_AT_MOST = timedelta(hours=1)
_EPOCHS_RETRY_AFTER = timedelta(minutes=5)

_log = structlog.get_logger(__name__)


class LogLimiter:
    """Keeps each log within its limits: evicts its oldest entries, if they are old enough."""

    def __init__(self, evictions: Evictions, limits: LogLimits) -> None:
        self._evictions = evictions
        self._limits = limits

    def fits(self, rows: int, bytes_: int) -> bool:
        """Whether a log may have so many rows and bytes."""
        return rows <= self._limits.rows and bytes_ <= self._limits.bytes

    async def evict_for(self, task_id: UUID, rows: int, bytes_: int) -> Evicted:
        """Evict until `rows` and `bytes_` more fit. Return all that was ever evicted from the log.

        While another transaction holds the task's rows, wait up to a minute. Raises LogFull if the
        remaining entries are too young, TaskNotFound, StoreUnavailable.
        """
        return await retry_while_held(
            lambda: self._make_room(task_id, rows, bytes_), wait=_HELD_WAIT
        )

    async def _make_room(self, task_id: UUID, rows: int, bytes_: int) -> Evicted:
        while True:
            held = await self._evict(task_id, rows, bytes_)
            if self.fits(held.rows + rows, held.bytes + bytes_):
                return held.evicted
            if held.outcome is EvictionOutcome.NOTHING:
                raise await self._full(task_id)
            if held.outcome is EvictionOutcome.LOCKED:
                raise row_held()

    async def enforce(self, task_id: UUID) -> bool:
        """Evict until the log is within its limits, or until no entry is old enough.

        Return False if it ended before, because another transaction had locked the head. Raises
        TaskNotFound, StoreUnavailable.
        """
        outcome = EvictionOutcome.EVICTED
        while outcome is EvictionOutcome.EVICTED:
            # Each chunk is a transaction of its own, so that others get their turn.
            outcome = (await self._evict(task_id, 0, 0)).outcome
        return outcome is not EvictionOutcome.LOCKED

    async def _evict(self, task_id: UUID, rows: int, bytes_: int) -> Holding:
        held = await self._evictions.evict(task_id, self._limits, rows=rows, bytes_=bytes_)
        if held.outcome is EvictionOutcome.EVICTED:
            _log.debug("log.evicted", task=str(task_id), revision=held.evicted.revision)
        return held

    async def _full(self, task_id: UUID) -> LogFull:
        old_in = await self._evictions.old_in(task_id, self._limits.min_retention)
        retry_after = min(max(old_in or _RETRY_AT_MOST, _RETRY_AT_LEAST), _RETRY_AT_MOST)
        return LogFull(
            self._limits.rows, self._limits.bytes, self._limits.min_retention, retry_after
        )


class EpochLimiter:
    """Limits how many epochs a task may open in an hour."""

    def __init__(self, store: SessionStore, per_hour: int) -> None:
        self._store = store
        self._per_hour = per_hour

    async def check(self, task_id: UUID) -> None:
        """Raise LimitExceeded if the task has opened too many epochs. Only stored epochs count."""
        if await self._store.epochs_in_the_last_hour(task_id) >= self._per_hour:
            raise LimitExceeded(
                Limit.EPOCHS_PER_HOUR,
                "task",
                f"{self._per_hour} new epochs in an hour",
                _EPOCHS_RETRY_AFTER,
            )
