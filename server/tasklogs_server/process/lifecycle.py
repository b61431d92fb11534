"""SIGTERM and SIGINT: the first one asks to leave in good order, the second one leaves."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import structlog

# As of everything that did not come to its end: open calls were cut, nothing was flushed.
EXIT_CODE_AT_ONCE = 1

_log = structlog.get_logger(__name__)


class StartupError(Exception):
    """The server cannot start, or cannot go on. One line that says why and what to do."""


class StoppedEarly(Exception):
    """A signal came before the server was ready."""


class StopSignals:
    """While entered, the first SIGTERM or SIGINT sets `stop`, a second one ends the process.

    At once: whatever hangs, and so without unwinding. What was acknowledged is stored.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self._last_deeds: list[Callable[[], None]] = []
        self._starting: asyncio.Timeout | None = None

    @asynccontextmanager
    async def while_starting(self) -> AsyncIterator[None]:
        """Give the block up at the first signal. Raises StoppedEarly."""
        starting = asyncio.timeout(None)
        try:
            async with starting:
                self._starting = starting
                try:
                    yield
                finally:
                    self._starting = None
        except TimeoutError as error:
            if starting.expired():
                raise StoppedEarly from error
            raise

    def before_leaving_at_once(self, deed: Callable[[], None]) -> None:
        """Do this, which must not wait for anything, before a second signal ends the process."""
        self._last_deeds.append(deed)

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._received)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    def _received(self) -> None:
        if not self.stop.is_set():
            self.stop.set()
            if self._starting is not None:
                self._starting.reschedule(asyncio.get_running_loop().time())
            return
        _log.warning("server.aborted")
        for deed in self._last_deeds:
            deed()
        os._exit(EXIT_CODE_AT_ONCE)
