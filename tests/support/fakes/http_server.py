"""A small HTTP/1.1 server on asyncio that can also misbehave: break off, hang, or reset its
connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from tests.support.fakes.stream_server import StreamServer

_PHRASES = {200: "OK", 400: "Bad Request", 404: "Not Found", 500: "Internal Server Error"}


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    body: bytes


@dataclass
class Response:
    """`torn`: only this many bytes of the body are sent, then the connection is reset."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    stream: AsyncIterator[bytes] | None = None
    torn: int | None = None
    headers: dict[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Awaitable[Response]]


class HttpServer:
    """Listens on loopback. `stop` resets every connection, as the end of a process does."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._server = StreamServer(self._serve, limit=64 * 1024 * 1024)
        self.port = 0

    async def start(self, port: int = 0) -> None:
        await self._server.start(port)
        self.port = self._server.port

    async def stop(self) -> None:
        await self._server.stop()

    @property
    def connections(self) -> int:
        """How many connections were accepted so far."""
        return self._server.connections

    def drop_connections(self) -> None:
        """Reset every connection, even in the middle of a message."""
        self._server.drop_connections()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await self._serve_one(reader, writer):
            pass

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        request = await _read_request(reader)
        serving = asyncio.ensure_future(self._handler(request))
        gone = asyncio.ensure_future(reader.read(1))
        try:
            # A handler that hangs ends when its caller disconnects.
            await asyncio.wait({serving, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                return False
            response = serving.result()
            if response.stream is not None:
                await _write_stream(writer, response, gone)
                return False
            return await _write_response(writer, response)
        finally:
            for task in (serving, gone):
                task.cancel()
            await asyncio.wait({serving, gone})


async def _read_request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ", 2)
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, target.split("?")[0], body)


async def _write_response(writer: asyncio.StreamWriter, response: Response) -> bool:
    head = [
        f"HTTP/1.1 {response.status} {_PHRASES.get(response.status, 'Other')}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in response.headers.items()),
    ]
    writer.write("\r\n".join([*head, "", ""]).encode())
    if response.torn is not None:
        writer.write(response.body[: response.torn])
        await writer.drain()
        writer.transport.abort()
        return False
    writer.write(response.body)
    await writer.drain()
    return False


async def _write_stream(
    writer: asyncio.StreamWriter, response: Response, gone: asyncio.Future[bytes]
) -> None:
    assert response.stream is not None
    head = [
        "HTTP/1.1 200 OK",
        f"Content-Type: {response.content_type}",
        "Transfer-Encoding: chunked",
        "Cache-Control: no-cache, no-store, must-revalidate",
    ]
    writer.write("\r\n".join([*head, "", ""]).encode())
    await writer.drain()
    ended = asyncio.ensure_future(_write_chunks(writer, response.stream))
    waited: set[asyncio.Future[None] | asyncio.Future[bytes]] = {ended, gone}
    try:
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            ended.result()
    finally:
        ended.cancel()
        await asyncio.wait({ended})


async def _write_chunks(writer: asyncio.StreamWriter, stream: AsyncIterator[bytes]) -> None:
    async for data in stream:
        writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()
