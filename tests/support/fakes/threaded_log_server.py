"""LogServer in a thread of its own, for tests whose main thread has no event loop."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.fakes.log_server import LogServer, log_server


class ThreadedLogServer:
    """A LogServer and its loop. Set `streams` and `answers` before the calls that use them."""

    def __init__(self, server: LogServer, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self.address = server.address
        self._loop = loop

    def set(self, event: asyncio.Event) -> None:
        """Let a stream go on that waits for `event`."""
        self._loop.call_soon_threadsafe(event.set)

    def wait(self, event: asyncio.Event, seconds: float = 60) -> None:
        """Wait for an event of the server. Raises TimeoutError."""
        waiting = asyncio.wait_for(event.wait(), seconds)
        asyncio.run_coroutine_threadsafe(waiting, self._loop).result()


@contextmanager
def threaded_log_server() -> Iterator[ThreadedLogServer]:
    """Serve on a free port of loopback."""
    made: queue.Queue[tuple[LogServer, asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()

    async def serve() -> None:
        end = asyncio.Event()
        async with log_server() as server:
            made.put((server, asyncio.get_running_loop(), end))
            await end.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="log server")
    thread.start()
    server, loop, end = made.get(timeout=60)
    try:
        yield ThreadedLogServer(server, loop)
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join()
