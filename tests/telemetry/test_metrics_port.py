"""Hostile clients of the metrics port: they get nothing more than others, and no scrape fails."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import httpx
import pytest

from tasklogs_server.telemetry import metrics_port
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until
from tests.support.fixtures.server import MakeServer, Server


async def scrapes(server: Server) -> bool:
    """Whether Prometheus gets a response now."""
    async with httpx.AsyncClient(trust_env=False) as client:
        with contextlib.suppress(httpx.HTTPError):
            answer = await client.get(f"http://{server.metrics_address}/metrics")
            return answer.status_code == 200 and "tasklogs_store_up 1" in answer.text
    return False


async def dial(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    assert server.metrics_address is not None
    host, _, port = server.metrics_address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def answer_to(server: Server, request: bytes) -> bytes:
    """What the server sends until it closes the connection."""
    reader, writer = await dial(server)
    try:
        writer.write(request)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            return await reader.read()
        return b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /" + b"a" * 10_000_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X-Long: " + b"x" * 1_000_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X-Many: y\r\n" * 100_000 + b"\r\n",
        b"GET /?" + b"name[]=x&" * 5_000 + b" HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
        b"GET /\x1b[2J\xff HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00" + bytes(512),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\r\n" * 1000,
    ],
)
async def test_an_invalid_request_gets_a_short_response_or_none(
    make_server: MakeServer, request_: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    async with make_server(metrics_listen="0") as server:
        answer = await answer_to(server, request_)
        assert await scrapes(server)
    assert b"Traceback" not in answer
    assert len(answer) < 100_000
    assert "\x1b" not in capfd.readouterr().err


async def test_silent_connections_are_closed(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_port, "_SECONDS", 1.0)
    async with make_server(metrics_listen="0") as server:
        threads = threading.active_count()
        silent = [await dial(server) for _ in range(200)]
        try:
            for _, writer in silent[:8]:
                with contextlib.suppress(ConnectionError):
                    writer.write(b"GET / HT")  # and the rest never
            assert threading.active_count() - threads <= 16

            async def are_gone() -> bool:
                return all(reader.at_eof() or reader.exception() for reader, _ in silent)

            for reader, _ in silent:
                with contextlib.suppress(ConnectionError):
                    async with asyncio.timeout(DEADLINE_SECONDS):
                        await reader.read()
            await until(are_gone)
            await until(lambda: scrapes(server))
        finally:
            for _, writer in silent:
                writer.transport.abort()


async def test_a_slow_request_is_ended_too(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte comes within the read time-out. The whole request never does."""
    monkeypatch.setattr(metrics_port, "_SECONDS", 1.0)
    async with make_server(metrics_listen="0") as server:
        reader, writer = await dial(server)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(DEADLINE_SECONDS):
                while not reader.at_eof():
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.05)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.01):
                            await reader.read(1)
        writer.transport.abort()
