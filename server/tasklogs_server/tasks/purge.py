"""The purge: deletes the rows of deleted tasks, one chunk of one task at a time, in turns."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from uuid import UUID

import structlog

from tasklogs_server.bus.interface import Bus
from tasklogs_server.bus.notes import Deleted
from tasklogs_server.domain.errors import StoreUnavailable, TaskNotFound
from tasklogs_server.ingest.sessions import Sessions
from tasklogs_server.store.errors import concerns_one_task, is_row_held
from tasklogs_server.store.purges import (
    CHUNK_BYTES,
    CHUNK_ROWS,
    OLDEST,
    ChunkOutcome,
    DeletedPosition,
    PurgeProgress,
    Purges,
)
from tasklogs_server.tasks.pace import Pace
from tasklogs_server.tasks.set_aside import SetAside

_SWEEP_EVERY_SECONDS = 30.0
_COUNT_EVERY_SECONDS = 10.0
_RETRY_SECONDS = 5.0
# The first chunks of several tasks are deleted in one transaction, and are together as large as one
# chunk. Most tasks are then gone.
_TASKS_AT_ONCE = 10
_PAGE_TASKS = 200
_MAX_NEW = 10_000
_MAX_BEGUN = 1_000
_WAITS_FOR_LONG_SECONDS = 64.0

_log = structlog.get_logger(__name__)


class Purge:
    """The purge of one process.

    A deletion in this process is purged at once. A sweep of the store every 30 s finds what other
    processes deleted, and what was deleted before a restart. New tasks and tasks that have begun
    take turns, so a small task waits for no large one. A task that cannot be purged is set aside.
    """

    def __init__(
        self,
        purges: Purges,
        sessions: Sessions,
        bus: Bus,
        *,
        pace: Pace,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._purges = purges
        self._pace = pace
        self._sessions = sessions
        self._bus = bus
        self._clock = clock
        self._new: deque[UUID] = deque()
        self._begun: deque[PurgeProgress] = deque()
        self._known: set[UUID] = set()
        """The tasks in `_new` and `_begun`, and the one whose chunk is deleted now."""
        self._set_aside: SetAside[PurgeProgress] = SetAside(clock)
        self._takes_new = True
        self._position: DeletedPosition | None = None
        """Where the sweep continues. None: it is over."""
        self._sweep_at = self._count_at = clock()
        self._woken = asyncio.Event()
        self._is_changed = False
        """Whether a task is gone since the backlog was counted."""
        self.backlog = 0
        """How many deleted tasks have rows in the store. Counted every 10 s while there is work."""

    @property
    def set_aside(self) -> int:
        """How many deleted tasks could not be purged, and are tried again later."""
        return len(self._set_aside)

    def deleted(self, task_id: UUID) -> None:
        """End the session and the follows of a task that was deleted, and purge it soon."""
        self._announce(task_id)
        # Beyond the limit, a later sweep finds it.
        if len(self._new) < _MAX_NEW and not self._has(task_id):
            self._add(task_id)
        self._woken.set()

    async def run(self) -> None:
        """Purge until cancelled."""
        is_away = False
        while True:
            self._woken.clear()
            was_away, is_away = is_away, False
            try:
                rest = await self._turn()
            except StoreUnavailable:
                is_away = True
                if not was_away:
                    _log.info("purge.postponed", reason="the store is away")
                await self._wait(_RETRY_SECONDS)
            except Exception:
                _log.exception("purge.failed")
                await self._wait(_RETRY_SECONDS)
            else:
                await (self._wait(self._nothing_for()) if rest is None else asyncio.sleep(rest))

    async def _turn(self) -> float | None:
        """Delete a chunk; return for how many seconds to rest. None: there is nothing to do."""
        began = self._clock()
        try:
            await self._find_more()
        except Exception as error:
            if not concerns_one_task(error):
                raise
            # A row that cannot be read must not stop the purge of the tasks that are known.
            _log.exception("purge.failed")
            self._position = None
        tasks = self._next()
        if tasks:
            for progress, outcome in zip(tasks, await self._purge_chunks(tasks), strict=True):
                self._sort(progress, outcome)
        elif self._position is None:
            return None
        return self._pace.rest(self._clock() - began)

    def _nothing_for(self) -> float:
        """Return in how many seconds there is something to do, if nothing is deleted here."""
        until_sweep = max(0.0, self._sweep_at - self._clock())
        until_retry = self._set_aside.next_in()
        return until_sweep if until_retry is None else min(until_sweep, until_retry)

    async def _wait(self, seconds: float) -> None:
        """Wait for so long, or until a task is deleted in this process."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()

    async def _find_more(self) -> None:
        for progress in self._set_aside.pop_due():
            self._known.add(progress.task_id)
            self._begun.append(progress)
        now = self._clock()
        if now >= self._sweep_at and self._position is None:
            self._sweep_at = now + _SWEEP_EVERY_SECONDS
            self._position = OLDEST
        if self._position is not None and not self._new and len(self._begun) < _MAX_BEGUN:
            await self._sweep(self._position)
        if now >= self._count_at or (self._is_changed and not self._known):
            self._count_at, self._is_changed = now + _COUNT_EVERY_SECONDS, False
            self.backlog = await self._purges.count()

    async def _sweep(self, position: DeletedPosition) -> None:
        found = await self._purges.deleted(position, limit=_PAGE_TASKS)
        for _, task_id in found:
            if not self._has(task_id):
                # The deletion may have been cancelled after its commit, before it told anyone.
                self._announce(task_id)
                self._add(task_id)
        self._position = found[-1] if len(found) == _PAGE_TASKS else None

    def _next(self) -> Sequence[PurgeProgress]:
        self._takes_new = not self._takes_new
        if self._new and (self._takes_new or not self._begun):
            count = min(len(self._new), _TASKS_AT_ONCE)
            return [PurgeProgress.of(self._new.popleft()) for _ in range(count)]
        return [self._begun.popleft()] if self._begun else []

    async def _purge_chunks(self, tasks: Sequence[PurgeProgress]) -> Sequence[ChunkOutcome]:
        rows, bytes_ = CHUNK_ROWS // len(tasks), CHUNK_BYTES // len(tasks)
        try:
            return await self._purges.purge(tasks, chunk_rows=rows, chunk_bytes=bytes_)
        except Exception as error:
            if not concerns_one_task(error):
                self._begun.extend(tasks)
                raise
            if len(tasks) > 1:
                # One task's rows are bad, and nothing was deleted. Each now gets turns of its own.
                return [ChunkOutcome.MORE] * len(tasks)
            if not is_row_held(error):
                task = str(tasks[0].task_id)
                _log.error("task.not_purged", task=task, error=type(error).__name__)
            return [ChunkOutcome.HELD]

    def _sort(self, progress: PurgeProgress, outcome: ChunkOutcome) -> None:
        task_id = progress.task_id
        match outcome:
            case ChunkOutcome.MORE if len(self._begun) < _MAX_BEGUN:
                self._begun.append(progress)
                return
            case ChunkOutcome.MORE:
                pass  # too many have begun: a later sweep finds it
            case ChunkOutcome.HELD:
                if self._set_aside.add(task_id, progress) == _WAITS_FOR_LONG_SECONDS:
                    _log.warning("task.blocked", task=str(task_id), work="purge")
            case ChunkOutcome.GONE:
                self._set_aside.forget(task_id)
                self._is_changed = True
        self._known.remove(task_id)

    def _has(self, task_id: UUID) -> bool:
        return task_id in self._known or task_id in self._set_aside

    def _add(self, task_id: UUID) -> None:
        self._known.add(task_id)
        self._new.append(task_id)

    def _announce(self, task_id: UUID) -> None:
        self._sessions.end(task_id, TaskNotFound(str(task_id)))
        self._bus.publish(Deleted(task_id))
