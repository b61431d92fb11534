"""A TCP proxy that loses its connections when a test says so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_PIECE_BYTES = 16_384


class CuttingProxy:
    """Forwards to a server. `cut_after` bytes towards the caller, once, it loses everybody."""

    def __init__(self, port: int) -> None:
        self.address = ""
        self.cuts = 0
        self._port = port
        self._left: int | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def cut_after(self, byte_count: int) -> None:
        """Cut every connection when `byte_count` more bytes have reached the callers."""
        self._left = byte_count

    def cut(self) -> None:
        """Cut every connection now, without a word."""
        self._left = None
        self.cuts += 1
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, upstream}
        try:
            await asyncio.gather(
                self._forward(reader, upstream, counted=False),
                self._forward(upstream_reader, writer, counted=True),
            )
        finally:
            self._writers -= {writer, upstream}
            for each in (writer, upstream):
                each.transport.abort()

    async def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(_PIECE_BYTES):
                if counted and self._left is not None and len(piece) >= self._left:
                    writer.write(piece[: self._left])
                    self.cut()
                    return
                if counted and self._left is not None:
                    self._left -= len(piece)
                writer.write(piece)
                await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def cutting_proxy(server_address: str) -> AsyncIterator[CuttingProxy]:
    """Listen on a free port of loopback and forward to `server_address`."""
    proxy = CuttingProxy(int(server_address.rpartition(":")[2]))
    listener = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        listener.close()
        await proxy.close()
