"""Agents that connect together, such as after a restart of the server, get in one after another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from tasklogs_server.concurrency.jitter import spread
from tasklogs_server.domain.errors import LimitExceeded
from tasklogs_server.domain.limits import Limit


class HandshakeQueue:
    """At most `at_once` agents shake hands with the store at the same time. Others wait in line.

    An agent that waits costs one idle stream. An agent that is refused costs a new connection, and
    thousands that come back every second or two leave no time for other work. So an agent is
    refused only if its turn does not come within `max_wait`.
    """

    def __init__(self, at_once: int, max_wait: timedelta) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._max_wait_seconds = max_wait.total_seconds()
        self.wanted = 0
        """How many agents have a turn, or wait for one."""

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it for the block. Raises LimitExceeded."""
        self.wanted += 1
        try:
            await self._wait()
            try:
                yield
            finally:
                self._turns.release()
        finally:
            self.wanted -= 1

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._max_wait_seconds):
                await self._turns.acquire()
        except TimeoutError:
            raise LimitExceeded(
                Limit.HANDSHAKES, "server", "too many agents connect at once", spread(0.5, 3.0)
            ) from None
