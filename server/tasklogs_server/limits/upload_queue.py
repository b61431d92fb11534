"""How many uploads are decoded and stored at the same time, and how many bytes of others wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from uuid import UUID

from tasklogs_server.concurrency.jitter import spread
from tasklogs_server.domain.errors import LimitExceeded
from tasklogs_server.domain.limits import Limit

# An upload that waits costs at least this much, with its call.
_LEAST_BYTES = 64 * 1024


class UploadQueue:
    """Turns of uploads, in the order in which their requests arrived.

    A request is here when all of it has arrived, so a slow sender holds no turn.
    """

    def __init__(self, *, at_work: int, queued_bytes: int, max_wait: timedelta) -> None:
        """`queued_bytes`: of all requests that are here, those at work included."""
        self._at_work = at_work
        self._turns = asyncio.Semaphore(at_work)
        self._limit_bytes = queued_bytes
        self._max_wait_seconds = max_wait.total_seconds()
        self._held_bytes = 0
        self._tasks: set[UUID] = set()
        """The tasks of which an upload is under way."""

    @property
    def held_bytes(self) -> int:
        """The bytes of the requests that wait, or are at work."""
        return self._held_bytes

    def check(self, task_id: UUID) -> None:
        """Raise LimitExceeded while an upload of the task is under way.

        This is asked before the request of another one is read: to read 3 MB, of which nothing is
        used, delays all other calls by some milliseconds.
        """
        if task_id in self._tasks:
            what = "another upload is under way"
            raise LimitExceeded(Limit.UPLOADS, "task", what, spread(0.5, 2.0))

    @contextmanager
    def only_one(self, task_id: UUID) -> Iterator[None]:
        """Hold off other uploads of the task for the block. Raises what `check` raises."""
        self.check(task_id)
        self._tasks.add(task_id)
        try:
            yield
        finally:
            self._tasks.discard(task_id)

    @asynccontextmanager
    async def turn(self, size_bytes: int) -> AsyncIterator[Callable[[], None]]:
        """Wait for a turn, and hold it for the block. `size_bytes`: of the request, if it is one.

        Yields what ends the turn earlier: an upload that only waits for the store needs none.

        Raises LimitExceeded if the others have too many bytes, or if the turn does not come in
        time.
        """
        size_bytes = max(size_bytes, _LEAST_BYTES) if size_bytes else 0
        if size_bytes and self._held_bytes and self._held_bytes + size_bytes > self._limit_bytes:
            what = f"more than {self._limit_bytes} bytes of uploads wait"
            raise LimitExceeded(Limit.QUEUED_UPLOAD_BYTES, "server", what, spread(2.0, 10.0))
        self._held_bytes += size_bytes
        try:
            await self._wait()
            is_over = False

            def end() -> None:
                nonlocal is_over
                if not is_over:
                    is_over = True
                    self._turns.release()

            try:
                yield end
            finally:
                end()
        finally:
            self._held_bytes -= size_bytes

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._max_wait_seconds):
                await self._turns.acquire()
        except TimeoutError:
            what = f"more than {self._at_work} uploads at work at the same time"
            raise LimitExceeded(Limit.UPLOADS_AT_WORK, "server", what, spread(2.0, 10.0)) from None
