"""SIGTERM and SIGINT: the first one asks to leave in good order, the second one leaves."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Self

import structlog

# As of everything that did not come to its end: open calls were cut, nothing was flushed.
EXIT_CODE_AT_ONCE = 1

_log = structlog.get_logger(__name__)


class StopSignals:
    """While entered, the first SIGTERM or SIGINT sets `stop`, a second one ends the process.

    At once: whatever hangs, and so without unwinding. What was acknowledged is stored.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self._last_deeds: list[Callable[[], None]] = []

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
            return
        _log.warning("server.leaves_at_once")
        for deed in self._last_deeds:
            deed()
        os._exit(EXIT_CODE_AT_ONCE)
