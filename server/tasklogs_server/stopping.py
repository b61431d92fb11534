"""SIGTERM and SIGINT as events."""

from __future__ import annotations

import asyncio
import signal
from types import TracebackType
from typing import Self


class StopSignals:
    """While entered, the first SIGTERM or SIGINT sets `stop`, a second one `at_once`."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.at_once = asyncio.Event()

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
        (self.at_once if self.stop.is_set() else self.stop).set()
