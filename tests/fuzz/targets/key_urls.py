"""The HTTP answer of the server that a JWKS document is fetched from."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import timedelta
from typing import ClassVar

from tasklogs_server.auth.key_ring import KeyRing
from tasklogs_server.auth.key_sources import Url
from tests.fuzz.loop import Loop
from tests.fuzz.target import Target
from tests.fuzz.targets.issuer import FuzzedIssuer
from tests.support.fakes.stream_server import StreamServer

_MAX_BYTES = 1024 * 1024
_MAGNIFIED = b"!"


class KeyUrls(Target):
    """An answer as it is on the wire, followed by the end of the connection.

    With `!` and a letter before it, the rest is repeated a thousand times. The answer is refused in
    one line, or at most 1 MiB of it is kept. A key ring over it has keys or a reason why not.
    """

    name: ClassVar[str] = "key_urls"
    examples: ClassVar[int] = 30
    tokens: ClassVar[Sequence[bytes]] = (
        *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 ", b"HTTP/1.1 100 Continue\r\n\r\n", b"\r\n\r\n"),
        *(b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"FFFFFFFF\r\n"),
        *(b"Content-Encoding: gzip\r\n", b"Location: http://[::1\r\n", b"301", b"Connection: "),
    )

    def __init__(self) -> None:
        self._loop = Loop()

    def close(self) -> None:
        self._loop.close()

    def seeds(self) -> Iterable[bytes]:
        document = FuzzedIssuer.make().jwks
        ok = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        length = b"Content-Length: %d\r\n\r\n"
        yield ok + length % len(document) + document
        yield ok + b"\r\n" + document
        yield ok + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (
            len(document),
            document,
        )
        yield ok + length % (len(document) + 9) + document
        squeezed = gzip.compress(document, mtime=0)
        yield ok + b"Content-Encoding: gzip\r\n" + length % len(squeezed) + squeezed
        yield b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n"
        yield b"HTTP/1.1 204 No Content\r\n\r\n"
        yield ok + length % 0
        yield _MAGNIFIED + b"h" + ok + b"X: y\r\n"
        yield _MAGNIFIED + b"b" + ok + b"\r\n" + b"x" * 2000
        yield b"HTTP/2 200\r\n\r\n"
        yield b""

    def run(self, data: bytes) -> None:
        self._loop.run(_fetched(_magnified(data)))


def _magnified(data: bytes) -> bytes:
    if data[:1] != _MAGNIFIED:
        return data
    head, blank, body = data[2:].partition(b"\r\n\r\n")
    if data[1:2] == b"b":
        return head + blank + body * 1000
    first, end, fields = head.partition(b"\r\n")
    return first + end + fields * 1000 + blank + body


class _Noted:
    """A source that records what was read from it."""

    def __init__(self, source: Url) -> None:
        self._source = source
        self.document: bytes | None = None

    async def read(self) -> bytes | None:
        self.document = await self._source.read()
        return self.document


async def _fetched(answer: bytes) -> None:
    async with _server(answer) as url:
        source = _Noted(Url(url))
        ring = KeyRing(source, every=timedelta(1), at_most_every=timedelta(0))
        failure = await ring.read()
    assert (failure is None) == bool(ring.keys and ring.keys.keys)
    assert failure is None or len(failure.splitlines()) == 1
    assert len(source.document or b"") <= _MAX_BYTES


@contextlib.asynccontextmanager
async def _server(answer: bytes) -> AsyncIterator[str]:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    async with StreamServer(respond) as server:
        yield f"http://127.0.0.1:{server.port}/keys"
