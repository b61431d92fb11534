"""A server of byte streams for tests. Its connections all end with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class StreamServer:
    """Listens on loopback or on a unix socket, and runs `serve` for each connection.

    A connection is closed when `serve` returns. `stop` resets those that are left, as the end of a
    process does. If the peer disconnects, `serve` ends silently.
    """

    def __init__(self, serve: Serve, *, limit: int = 2**16) -> None:
        self._serve = serve
        self._limit = limit
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.connections = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start_unix(self, path: Path) -> None:
        self._server = await asyncio.start_unix_server(self._connected, path, limit=self._limit)

    async def start(self, port: int = 0) -> None:
        # reuse_address lets a restarted server listen on the same port.
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", port, reuse_address=True, limit=self._limit
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is None:
            return
        await close(self._server)
        self.drop_connections()
        for task in set(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._writers.clear()
        self._server = None

    def drop_connections(self) -> None:
        """Reset every connection, even in the middle of a message."""
        for writer in self._writers:
            writer.transport.abort()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not a coroutine: a task that is cancelled before its first step would leave the
        # connection open.
        self._writers.add(writer)
        self.connections += 1
        task = asyncio.create_task(self._serve_and_close(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_and_close(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            try:
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
            except asyncio.CancelledError:
                writer.transport.abort()  # unsent bytes would keep it open
            self._writers.discard(writer)


async def close(server: asyncio.Server) -> None:
    """Close `server` when every accepted connection has reached its protocol.

    If an asyncio server is closed after it accepts a connection and before the transport exists, it
    drops that connection without closing it. Its peer would wait indefinitely.
    """
    loop = asyncio.get_running_loop()
    for listening in server.sockets:
        loop.remove_reader(listening)
    for _ in range(3):  # for a transport, for `connection_made`, for what that has scheduled
        await asyncio.sleep(0)
    server.close()
