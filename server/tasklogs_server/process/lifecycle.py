"""The first SIGTERM or SIGINT asks the server to stop, the second ends the process.

SIGHUP, which a terminal sends that is closed, asks it to stop, too.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import structlog

from tasklogs import log_output

# A failure: open calls were cut off, and nothing was flushed.
ABORT_EXIT_CODE = 1

_log = structlog.get_logger(__name__)


class StartupError(Exception):
    """The server cannot start, or cannot go on. One line that says why and what to do."""


class StoppedEarly(Exception):
    """A signal came before the server was ready."""


class StopSignals:
    """While entered, the first SIGTERM or SIGINT sets `stop`, and the second ends the process.

    The second ends it without unwinding, because something may hang. Acknowledged entries are
    stored by then. SIGHUP sets `stop` and never counts as a second signal: a shell sends it beside
    others. It stays ignored under `nohup`.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self._has_received = False
        self._abort_actions: list[Callable[[], None]] = []
        self._starting: asyncio.Timeout | None = None
        self._handled: list[signal.Signals] = []

    @asynccontextmanager
    async def while_starting(self) -> AsyncIterator[None]:
        """Cancel the block at the first signal. Raises StoppedEarly."""
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

    def on_abort(self, action: Callable[[], None]) -> None:
        """Run `action` before a second signal ends the process. It must not wait for anything."""
        self._abort_actions.append(action)

    def request(self) -> None:
        """Ask the server to stop, as the first signal does.

        It counts as no signal: the first one, which the same cause may have sent, ends nothing.
        """
        if self.stop.is_set():
            return
        self.stop.set()
        if self._starting is not None:
            self._starting.reschedule(asyncio.get_running_loop().time())

    def __enter__(self) -> Self:
        handlers = {signal.SIGTERM: self._received, signal.SIGINT: self._received}
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            handlers[signal.SIGHUP] = self.request
        for number, handler in handlers.items():
            asyncio.get_running_loop().add_signal_handler(number, handler)
            self._handled.append(number)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number in self._handled:
            asyncio.get_running_loop().remove_signal_handler(number)

    def _received(self) -> None:
        if not self._has_received:
            self._has_received = True
            self.request()
            return
        _log.warning("server.aborted")
        for action in self._abort_actions:
            action()
        log_output.flush()
        os._exit(ABORT_EXIT_CODE)
