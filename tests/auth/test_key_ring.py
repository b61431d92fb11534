"""Keys that change at their source, which is a file or a real HTTP server."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tasklogs_server.auth import key_ring
from tasklogs_server.auth.key_ring import KeyRing
from tasklogs_server.auth.key_sources import File, Source, Unreadable, Url
from tests.support.fakes.stream_server import StreamServer
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until
from tests.support.fixtures.issuer import SigningKey, jwks, new_key, publish

FIRST, SECOND = new_key("first"), new_key("second")
HOUR = timedelta(hours=1)
NO_TIME = timedelta(0)
SOON = timedelta(milliseconds=20)


class Scripted:
    """A source with responses that a test sets and releases."""

    def __init__(self, *keys: SigningKey) -> None:
        self.document: bytes | None = jwks(*keys)
        self.failure: str | None = None
        self.reads = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def read(self) -> bytes | None:
        self.reads += 1
        await self.may_answer.wait()
        if self.failure is not None:
            raise Unreadable(self.failure)
        return self.document


@asynccontextmanager
async def ring_of(
    source: Source, *, every: timedelta = HOUR, at_most_every: timedelta = NO_TIME
) -> AsyncIterator[KeyRing]:
    """A key ring that was read once, and runs."""
    ring = KeyRing(source, every=every, at_most_every=at_most_every)
    await ring.read()
    running = asyncio.create_task(ring.run())
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            yield ring
    finally:
        running.cancel()
        await asyncio.wait([running])


def kids(ring: KeyRing) -> list[str | None]:
    return [] if ring.keys is None else [key.kid for key in ring.keys.keys]


async def test_a_file_that_is_replaced_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    publish(path, FIRST)
    async with ring_of(File(path), every=SOON) as ring:
        assert kids(ring) == ["first"]
        publish(path, FIRST, SECOND)
        await until(lambda: kids(ring) == ["first", "second"])
        publish(path, SECOND)
        await until(lambda: kids(ring) == ["second"])


async def test_a_file_behind_a_changed_symbolic_link_is_read_again(tmp_path: Path) -> None:
    publish(tmp_path / "a", FIRST)
    publish(tmp_path / "b", SECOND)
    link = tmp_path / "jwks.json"
    link.symlink_to("a")
    async with ring_of(File(link)) as ring:
        (tmp_path / "next").symlink_to("b")
        (tmp_path / "next").replace(link)
        await ring.look_again()
        assert kids(ring) == ["second"]


@pytest.mark.parametrize("bad", [b"", b"{", b"{}", b"x" * 2_000_000, None])
async def test_an_unusable_file_leaves_the_keys_and_is_logged_once(
    tmp_path: Path, bad: bytes | None
) -> None:
    path = tmp_path / "jwks.json"
    publish(path, FIRST)
    with capture_logs() as logged:
        async with ring_of(File(path)) as ring:
            path.unlink()
            if bad is not None:
                path.write_bytes(bad)
            for _ in range(3):
                await ring.look_again()
            assert kids(ring) == ["first"]
            publish(path, SECOND)
            await ring.look_again()
            assert kids(ring) == ["second"]
    assert len([one for one in logged if one["event"] == "keys.kept"]) == 1


@pytest.mark.parametrize("none", [b'{"keys": []}', b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}'])
async def test_a_valid_document_without_keys_withdraws_all_keys(
    tmp_path: Path, none: bytes
) -> None:
    path = tmp_path / "jwks.json"
    publish(path, FIRST)
    with capture_logs() as logged:
        async with ring_of(File(path)) as ring:
            path.write_bytes(none)
            await ring.look_again()
            assert ring.keys is not None
            assert kids(ring) == []
            publish(path, SECOND)
            await ring.look_again()
            assert kids(ring) == ["second"]
    assert "keys.missing" in [one["event"] for one in logged]


async def test_a_valid_document_without_keys_at_the_start_means_no_keys_yet() -> None:
    ring = KeyRing(Scripted(), every=HOUR, at_most_every=NO_TIME)
    assert await ring.read() == "it holds no keys"
    assert ring.keys is None


async def test_unknown_keys_cause_one_read_that_serves_all_callers() -> None:
    source = Scripted(FIRST)
    async with ring_of(source) as ring:
        source.document = jwks(FIRST, SECOND)
        source.may_answer.clear()
        asking = [asyncio.create_task(ring.look_again()) for _ in range(20)]
        await until(lambda: source.reads == 2)
        source.may_answer.set()
        await asyncio.gather(*asking)
        assert source.reads == 2
        assert kids(ring) == ["first", "second"]


async def test_unknown_keys_cause_no_more_reads_than_allowed() -> None:
    source = Scripted(FIRST)
    async with ring_of(source, at_most_every=HOUR) as ring:
        for _ in range(100):
            await ring.look_again()
        assert source.reads == 1


async def test_the_keys_can_be_used_during_a_read() -> None:
    source = Scripted(FIRST)
    async with ring_of(source) as ring:
        source.may_answer.clear()
        asking = asyncio.create_task(ring.look_again())
        await until(lambda: source.reads == 2)
        assert kids(ring) == ["first"]
        asking.cancel()


async def test_an_unreachable_source_leaves_the_keys_and_is_asked_again_soon() -> None:
    source = Scripted(FIRST)
    async with ring_of(source) as ring:
        source.failure = "away"
        await ring.look_again()
        assert kids(ring) == ["first"]
        source.failure, source.document = None, jwks(SECOND)
        await until(lambda: kids(ring) == ["second"])  # long before the hour


async def test_a_source_that_is_unreachable_at_the_start_is_asked_again_soon() -> None:
    source = Scripted(FIRST)
    source.failure = "away"
    async with ring_of(source) as ring:
        assert ring.keys is None
        source.failure = None
        await until(lambda: kids(ring) == ["first"])


class HttpServer:
    """Answers every request with `response`, on loopback."""

    def __init__(self) -> None:
        self.response = b""
        self.drips = False
        self.repeats = False
        self.requests = 0
        self.sent_bytes = 0
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[HttpServer]:
        async with StreamServer(self._answer) as server:
            self.url = f"http://127.0.0.1:{server.port}/keys"
            yield self

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests += 1
        await reader.readuntil(b"\r\n\r\n")
        await self._write(writer, self.response)
        while self.drips or self.repeats:
            await self._write(writer, b" " if self.drips else b" " * 65536)
            await asyncio.sleep(0.02 if self.drips else 0)

    async def _write(self, writer: asyncio.StreamWriter, piece: bytes) -> None:
        writer.write(piece)
        await writer.drain()
        self.sent_bytes += len(piece)


def ok(body: bytes, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


async def test_a_url_is_fetched_and_fetched_again() -> None:
    async with HttpServer().running() as server:
        server.response = ok(jwks(FIRST))
        async with ring_of(Url(server.url), every=SOON) as ring:
            assert kids(ring) == ["first"]
            server.response = ok(jwks(SECOND))
            await until(lambda: kids(ring) == ["second"])


@pytest.mark.parametrize(
    "bad",
    [
        b"HTTP/1.1 500 Oops\r\nConnection: close\r\n\r\n" + jwks(SECOND),
        ok(b"<html>"),
        ok(b" " * 2_000_000),
        ok(gzip.compress(jwks(SECOND)), "Content-Encoding: gzip"),
        ok(gzip.compress(bytes(64_000_000)), "Content-Encoding: gzip"),
        ok(zlib.compress(bytes(64_000_000)), "Content-Encoding: deflate"),
        ok(b"\x1b", "Content-Encoding: br"),
        ok(b"[" * 100_000),
        ok(b'{"keys": [' + b"0," * 200_000 + b"0]}"),
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 4_000_000,
        b"HTTP/1.1 200 OK\r\n" + b"X-More: and more\r\n" * 100_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
        b"no HTTP at all\r\n\r\n",
        b"",
    ],
)
async def test_an_invalid_response_of_a_url_leaves_the_keys(bad: bytes) -> None:
    async with HttpServer().running() as server:
        server.response = ok(jwks(FIRST))
        async with ring_of(Url(server.url)) as ring:
            server.response = bad
            await ring.look_again()
            assert kids(ring) == ["first"]


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_not_followed(status: str) -> None:
    async with HttpServer().running() as server, HttpServer().running() as elsewhere:
        server.response = ok(jwks(FIRST))
        elsewhere.response = ok(jwks(SECOND))
        async with ring_of(Url(server.url)) as ring:
            for location in (elsewhere.url, "https://127.0.0.1:1/keys", "file:///keys", "/other"):
                server.response = f"HTTP/1.1 {status}\r\nLocation: {location}\r\n\r\n".encode()
                await ring.look_again()
                assert kids(ring) == ["first"]
        assert elsewhere.requests == 0


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\nX: ", ok(b'{"keys": [')])
async def test_a_slow_response_is_given_up_in_time_and_the_keys_stay(
    monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    """Each byte comes within the read time-out. The whole response never does."""
    async with HttpServer().running() as server:
        server.response = ok(jwks(FIRST))
        async with ring_of(Url(server.url)) as ring:
            # Not before the first read, which a busy machine may slow down.
            monkeypatch.setattr(key_ring, "_READ_SECONDS", 0.5)
            server.response = first
            server.drips = True
            await ring.look_again()
            assert kids(ring) == ["first"]


async def test_an_endless_response_is_given_up_at_the_limit() -> None:
    async with HttpServer().running() as server:
        server.response = ok(b" " * 65536)
        server.repeats = True
        ring = KeyRing(Url(server.url), every=HOUR, at_most_every=NO_TIME)
        assert await ring.read() == "it is too large"
        assert server.sent_bytes < 16_000_000  # with what the sockets hold


async def test_a_url_where_nothing_listens_gives_no_keys_and_a_reason() -> None:
    ring = KeyRing(Url("http://127.0.0.1:1/keys"), every=HOUR, at_most_every=NO_TIME)
    assert await ring.read() == "ConnectError"
    assert ring.keys is None


def test_a_url_is_shown_without_its_secrets() -> None:
    source = Url("https://user:secret@issuer.example:8443/keys?token=secret#secret")
    assert str(source) == "https://issuer.example:8443/keys"


@pytest.mark.parametrize("url", ["https://[", "https://", "https://a..b/", "https://\ud800/"])
async def test_an_invalid_url_gives_no_keys_and_a_reason(url: str) -> None:
    ring = KeyRing(Url(url), every=HOUR, at_most_every=NO_TIME)
    assert await ring.read() is not None
