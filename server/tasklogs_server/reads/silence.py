"""How long a follow has sent nothing."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from tasklogs_server.concurrency.wake import Settable


class Silence:
    """Sets `woken` when nothing was written for `limit`. It begins with the first message.

    One timer is re-armed when it fires. A timer or a look at the clock for each wait would cost
    more: each message has a wait.
    """

    def __init__(self, limit: timedelta, woken: Settable) -> None:
        self.is_over = False
        """Whether a message is due."""
        self._limit = limit.total_seconds()
        self._woken = woken
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    def wrote(self) -> None:
        """A message was written: the time in which its reader did not read does not count."""
        self._began = self._loop.time()
        if self._timer is None:
            self._arm()

    async def is_over_before(self, work: asyncio.Future[Any]) -> bool:
        """Wait until a message is due or `work` is done; return whether a message is due."""
        left = self._began + self._limit - self._loop.time()
        await asyncio.wait([work], timeout=max(0.0, left))
        return not work.done()

    def stop(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        self.is_over = False
        due = self._began + self._limit
        self._timer = self._loop.call_at(due, self._look, due)

    def _look(self, due: float) -> None:
        if self._began + self._limit > due:
            self._arm()
            return
        self._timer = None
        self.is_over = True
        self._woken.set()
