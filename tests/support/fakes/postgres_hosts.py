"""Hosts that a database URL may name and that are no Postgres, or not yet."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress

from tests.support.fakes.stream_server import StreamServer

Refusal = tuple[str, str]
"""The SQLSTATE and the message with which a Postgres refuses a connection."""

STARTING: Refusal = ("57P03", "the database system is starting up")

# Linux admits one more connection than the backlog.
_FILL = 4
_FILL_SECONDS = 0.05


@contextmanager
def silent_host() -> Iterator[int]:
    """Lend the port of a host that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextmanager
def black_hole() -> Iterator[int]:
    """Lend a port that does not even accept: its backlog is full, so the kernel drops each SYN."""
    with ExitStack() as opened:
        listener = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(_FILL):
            filler = opened.enter_context(socket.socket())
            filler.settimeout(_FILL_SECONDS)
            with suppress(TimeoutError):
                filler.connect(listener.getsockname())
        yield listener.getsockname()[1]


@contextmanager
def refusing_host() -> Iterator[int]:
    """Lend a port that refuses connections while the block lasts."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@asynccontextmanager
async def refusing_postgres(*refusals: Refusal) -> AsyncIterator[tuple[int, deque[Refusal]]]:
    """Listen as a Postgres that refuses one connection after another, and then as the last one.

    Yields its port and what is left of the refusals.
    """
    left = deque(refusals)

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _read_startup(reader)
        code, message = left.popleft() if left else refusals[-1]
        fields = f"SFATAL\0VFATAL\0C{code}\0M{message}\0\0".encode()
        writer.write(_message(b"E", fields))
        await writer.drain()

    async with StreamServer(refuse) as server:
        yield server.port, left


@asynccontextmanager
async def old_postgres(version: str) -> AsyncIterator[int]:
    """Listen as a Postgres of this version that lets everybody in, and answers no statement."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _read_startup(reader)
        writer.write(_message(b"R", struct.pack("!i", 0)))
        writer.write(_message(b"S", f"server_version\0{version}\0".encode()))
        writer.write(_message(b"K", struct.pack("!ii", 1, 1)))
        writer.write(_message(b"Z", b"I"))
        await reader.read()

    async with StreamServer(greet) as server:
        yield server.port


async def _read_startup(reader: asyncio.StreamReader) -> None:
    length = int.from_bytes(await reader.readexactly(4))
    await reader.readexactly(length - 4)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4) + body
