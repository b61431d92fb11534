from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from tests.support.fakes.stream_server import StreamServer
from tests.support.fixtures.conditions import DEADLINE_SECONDS


@pytest.mark.parametrize("steps", range(8))
async def test_no_connection_outlives_its_server_whenever_it_stops(steps: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    server = StreamServer(serve)
    await server.start()
    with socket.create_connection(("127.0.0.1", server.port)) as peer:
        peer.setblocking(False)
        for _ in range(steps):  # steps of the event loop: accepted, open, served
            await asyncio.sleep(0)
        await server.stop()

        async with asyncio.timeout(DEADLINE_SECONDS):
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.get_running_loop().sock_recv(peer, 1) == b""
