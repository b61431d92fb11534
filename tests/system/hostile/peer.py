"""A peer that speaks HTTP/2 by hand. It does only what it is told to do."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

from tests.system.hostile import frames
from tests.system.hostile.frames import ACK, HEADER_BYTES, PREFACE, Frame, Kind
from tests.system.hostile.target import Target

# The errors that show that the server closed the connection.
GONE = (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError)


class Pace:
    """Limits this process to a share of one CPU, on average.

    Attackers, server and readers share the machine. An attacker that took all the CPU time it could
    get would show nothing about the server: any busy process slows the others down.
    """

    def __init__(self, share: float = 0.15) -> None:
        self._share = max(share, 0.01)
        self._began = time.monotonic()
        self._used = time.process_time()

    async def keep(self) -> None:
        """Wait while this process is above its share."""
        now, used = time.monotonic(), time.process_time()
        ahead = (used - self._used) / self._share - (now - self._began)
        if ahead > 0:
            await asyncio.sleep(ahead)
        elif now - self._began > 1:  # unused time does not accumulate
            self._began, self._used = now, used


@dataclass
class Tally:
    """Statistics of the connections of one behaviour."""

    opened: int = 0
    ended_by_the_server: int = 0
    longest_seconds: float = 0.0
    """How long the server kept a connection before it closed it."""
    sent_bytes: int = 0
    sent: int = 0
    """The number of requests, frames or what else the behaviour counts."""
    ends: Counter[str] = field(default_factory=Counter)
    """How many calls ended with which status, where the behaviour reads it."""
    pace: Pace = field(default_factory=Pace)
    held: set[object] = field(default_factory=set)
    """The connections that are open now."""


class Peer:
    """One connection to the server."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tally: Tally
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._tally = tally
        self._next_stream = 1

    @classmethod
    @asynccontextmanager
    async def connected(
        cls, target: Target, tally: Tally, *, without_tls: bool = False
    ) -> AsyncIterator[Self]:
        """Connect, with TLS if the server uses it."""
        tls = None if without_tls else target.tls
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", target.port, ssl=tls, server_hostname="localhost" if tls else None
        )
        peer = cls(reader, writer, tally)
        tally.opened += 1
        tally.held.add(peer)
        began = asyncio.get_running_loop().time()
        try:
            yield peer
        except GONE:
            tally.ended_by_the_server += 1
            seconds = asyncio.get_running_loop().time() - began
            tally.longest_seconds = max(tally.longest_seconds, seconds)
        finally:
            tally.held.discard(peer)
            writer.transport.abort()

    async def send(self, *pieces: bytes) -> None:
        """Write, and wait until the kernel has accepted most of it."""
        piece = b"".join(pieces)
        self._writer.write(piece)
        self._tally.sent_bytes += len(piece)
        await self._writer.drain()
        await self._tally.pace.keep()

    async def begin(self, values: dict[int, int] | None = None) -> None:
        """Send the preface and SETTINGS."""
        await self.send(PREFACE, frames.settings(values))

    def next_stream(self) -> int:
        self._next_stream += 2
        return self._next_stream - 2

    async def next_frame(self) -> Frame:
        length, head = frames.header_of(await self._reader.readexactly(HEADER_BYTES))
        payload = await self._reader.readexactly(length)
        return Frame(head.kind, head.flags, head.stream, payload)

    async def behave(self) -> None:
        """Acknowledge SETTINGS and PINGs until the server closes. Then raises one of GONE."""
        while True:
            await self.take(await self.next_frame())

    async def take(self, received: Frame) -> None:
        """Acknowledge a frame if the protocol requires it."""
        if received.flags & ACK:
            return
        if received.kind == Kind.SETTINGS:
            await self.send(frames.frame(Kind.SETTINGS, flags=ACK))
        elif received.kind == Kind.PING:
            await self.send(frames.frame(Kind.PING, received.payload, flags=ACK))

    async def listen_to_the_end(self) -> None:
        """Read raw bytes, not HTTP/2, until the server closes. Then raises one of GONE."""
        while await self._reader.read(65_536):
            pass
        raise ConnectionResetError

    def stop_reading(self) -> None:
        """Stop reading: first the kernel's buffers fill up, then the server's."""
        # asyncio has no public API for this.
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    async def grant(self, bytes_: int, stream: int = 0) -> None:
        await self.send(frames.window_update(bytes_, stream))

    async def open_call(self, target: Target, path: str, token: str | None = None) -> int:
        """Send the headers of a call. Return its stream id."""
        stream = self.next_stream()
        fields = frames.request_fields(path, scheme=target.scheme, token=token)
        await self.send(frames.headers(stream, fields))
        return stream

    async def call(self, target: Target, path: str, request: bytes, token: str | None) -> int:
        """Send a complete call. Return its stream id."""
        stream = await self.open_call(target, path, token)
        await self.send(frames.message(stream, request))
        return stream
