"""Agents that come at once, after a restart of the server: they are let in one after the other."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from tasklogs_server.domain.errors import LimitExceeded
from tasklogs_server.domain.limits import Limit


class Handshakes:
    """At most `at_once` agents talk to the store to get in; others wait for their turn.

    Waiting in line costs a stream that stands still; being turned away costs a new connection, and
    thousands that come back every second or two leave no time for anything else. So only those are
    turned away whose turn does not come within `patience`.
    """

    def __init__(self, at_once: int, patience: timedelta) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._patience_seconds = patience.total_seconds()
        self.wanted = 0
        """How many have a turn, or wait for one."""

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it for the block. Raises LimitExceeded."""
        self.wanted += 1
        try:
            await self._come_in()
            try:
                yield
            finally:
                self._turns.release()
        finally:
            self.wanted -= 1

    async def _come_in(self) -> None:
        try:
            async with asyncio.timeout(self._patience_seconds):
                await self._turns.acquire()
        except TimeoutError:
            # Spread out: those who were turned away together must not come back together.
            later = timedelta(seconds=random.uniform(0.5, 3.0))
            raise LimitExceeded(
                Limit.HANDSHAKES, "server", "too many agents connect at once", later
            ) from None
