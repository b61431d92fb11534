"""A malicious or broken task app: the agent's memory is bounded, and it reports the failure."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager

import pytest

from tasklogs.agent.sources.agentapi import client as task_app
from tasklogs.agent.sources.agentapi import watch
from tasklogs.agent.sources.agentapi.client import Burst, TaskApp
from tasklogs.agent.sources.agentapi.faults import Fault, TaskAppError
from tasklogs.v1 import task_agents_pb2 as pb
from tests.agent.conftest import patient, running_agent, until
from tests.support.fakes.agent_server import FakeServer
from tests.support.fakes.stream_server import StreamServer
from tests.support.fakes.task_app import FakeTaskApp, Message, rfc3339, status_event
from tests.support.fixtures.conditions import DEADLINE_SECONDS

MIB = 1024 * 1024
LIMIT_BYTES = 2 * MIB
SENT_AT_MOST_BYTES = LIMIT_BYTES + 16 * MIB  # with what the sockets and their readers hold

Answer = Callable[[], Iterable[bytes]]


class Hostile:
    """Responds to each request with the bytes of `answer`, until they end or the client leaves."""

    def __init__(self, answer: Answer, pause_seconds: float = 0.0) -> None:
        self._answer = answer
        self._pause_seconds = pause_seconds
        self.sent_bytes = 0
        self.requests: list[bytes] = []
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Hostile]:
        async with StreamServer(self._serve) as server:
            self.url = f"http://127.0.0.1:{server.port}"
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        for piece in self._answer():
            writer.write(piece)
            self.sent_bytes += len(piece)
            await writer.drain()
            await asyncio.sleep(self._pause_seconds)


@asynccontextmanager
async def facing(
    answer: Answer, *, pause_seconds: float = 0.0, patience_seconds: float = 10.0
) -> AsyncIterator[tuple[Hostile, TaskApp]]:
    async with Hostile(answer, pause_seconds).running() as hostile:
        app = TaskApp(hostile.url, patient(sync_timeout_seconds=patience_seconds))
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                yield hostile, app
        finally:
            await app.aclose()


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_app, "_MAX_BODY_BYTES", LIMIT_BYTES)
    monkeypatch.setattr(task_app, "_MAX_EVENT_BYTES", LIMIT_BYTES)


def head(*headers: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "Connection: close", "", ""]).encode()


def stream_head(content_type: str = "text/event-stream") -> bytes:
    return head(f"Content-Type: {content_type}")


def then_for_ever(first: bytes, then: bytes) -> Answer:
    def answer() -> Iterator[bytes]:
        return itertools.chain([first], itertools.repeat(then))

    return answer


def body(*messages: dict[str, object]) -> bytes:
    return json.dumps({"messages": messages}).encode()


async def refused(answer: Answer, path: str) -> tuple[TaskAppError, Hostile]:
    """Return the agent's failure for a response at `path`."""
    async with facing(answer) as (hostile, app):
        with pytest.raises(TaskAppError) as raised:
            await (app.messages() if path == "/messages" else app.burst())
    return raised.value, hostile


@pytest.mark.parametrize("path", ["/messages", "/events"])
@pytest.mark.parametrize(
    ("coding", "bomb"),
    [
        ("gzip", gzip.compress(bytes(64 * MIB))),
        ("deflate", zlib.compress(bytes(64 * MIB))),
        ("GZIP , gzip", gzip.compress(gzip.compress(bytes(64 * MIB)))),
        ("br", b"\x1b"),
        ("zstd", b"\x28\xb5\x2f\xfd"),
    ],
)
async def test_a_compressed_response_is_not_requested_and_not_expanded(
    path: str, coding: str, bomb: bytes
) -> None:
    first = head("Content-Type: text/event-stream", f"Content-Encoding: {coding}")
    error, hostile = await refused(lambda: [first, bomb], path)
    assert error.fault is Fault.NONSENSE
    assert "compressed" in str(error)
    assert b"accept-encoding: identity\r\n" in hostile.requests[0].lower()


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/messages", then_for_ever(head(), b" " * 65536)),
        ("/events", then_for_ever(stream_head(), b"data: without a line's end" * 4096)),
        ("/events", then_for_ever(stream_head(), b"data: and never an event's end\n" * 4096)),
        ("/events", then_for_ever(stream_head(), b": a comment without an end" * 4096)),
        ("/messages", then_for_ever(b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n" * 1024)),
        ("/messages", then_for_ever(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x" * 65536)),
    ],
)
async def test_an_endless_response_is_abandoned_at_the_limit(path: str, answer: Answer) -> None:
    error, hostile = await refused(answer, path)
    assert error.fault in (Fault.NONSENSE, Fault.TORN)
    assert hostile.sent_bytes < SENT_AT_MOST_BYTES


async def test_an_endless_burst_is_abandoned_at_the_limit() -> None:
    def answer() -> Iterator[bytes]:
        yield stream_head()
        for number in itertools.count():
            yield Message(number, "x" * 65536, "agent", rfc3339(number)).as_event()

    error, hostile = await refused(answer, "/events")
    assert error.fault is Fault.NONSENSE
    assert hostile.sent_bytes < SENT_AT_MOST_BYTES


async def test_any_number_of_comments_is_accepted() -> None:
    def answer() -> Iterator[bytes]:
        yield stream_head()
        for _ in range(100):
            yield b": still here\n" * 4096
        yield status_event("stable")

    async with facing(answer) as (_, app):
        assert (await app.burst()).entries == []


@pytest.mark.parametrize("drip", [b"HTTP/1.1 200 OK\r\nX: ", head() + b"{"])
async def test_a_response_that_never_ends_is_abandoned_in_time(
    drip: bytes, server: FakeServer
) -> None:
    dripping = Hostile(then_for_ever(drip, b" "), pause_seconds=0.01)
    async with dripping.running():
        app = FakeTaskApp()
        app._http.port = int(dripping.url.rpartition(":")[2])
        async with running_agent(app, server, patient(sync_timeout_seconds=0.3)):
            session = await server.session()
            failed = await session.sync(1)
    assert "no response within" in failed.sync_failed.reason


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_not_followed(status: str) -> None:
    elsewhere = Hostile(lambda: [head(), body()])
    async with elsewhere.running():
        first = head(f"Location: {elsewhere.url}/messages", status=status)
        error, _ = await refused(lambda: [first], "/messages")
        assert error.fault is Fault.NONSENSE
        assert elsewhere.requests == []


async def test_cookies_are_not_kept() -> None:
    numbers = itertools.count()

    def answer() -> Iterator[bytes]:
        yield head(f"Set-Cookie: name{next(numbers)}=value; Path=/")
        yield body()

    async with facing(answer) as (hostile, app):
        for _ in range(3):
            assert (await app.messages()).entries == []
    assert not any(b"cookie" in request.lower() for request in hostile.requests)


@pytest.mark.parametrize(
    "charset", ["zlib", "zlib_codec", "rot13", "utf-16", "idna", "unicode_escape", "bz2", "\ufffd"]
)
async def test_a_stream_is_decoded_as_utf_8_whatever_charset_it_names(charset: str) -> None:
    message = Message(0, "ü日\U0001f642", "user", rfc3339(1))

    def answer() -> Iterator[bytes]:
        yield stream_head(f"text/event-stream; charset={charset}")
        yield message.as_event() + status_event("stable")

    async with facing(answer) as (_, app), app.events() as events:
        burst = await anext(events)
    assert isinstance(burst, Burst)
    assert burst.shown.entries[0].content.decode() == message.content


@pytest.mark.parametrize(
    "nonsense",
    [
        b"[" * 100_000,
        b'{"messages":' * 100_000,
        b'{"messages": [' + b"9" * 100_000 + b"]}",
        b'{"messages": [1e400, -1e400, NaN, Infinity]}',
        b'{"messages": {"messages": []}}',
        b'{"messages": [[]]}',
        b"\xff\xfe\x00\x00",
        b"\x80",
        b"",
        b"null",
        b'"messages"',
    ],
)
async def test_a_body_without_a_conversation_is_refused(nonsense: bytes) -> None:
    error, _ = await refused(lambda: [head(), nonsense], "/messages")
    assert error.fault is Fault.NONSENSE


async def test_an_agent_continues_once_its_task_app_responds_correctly(
    app: FakeTaskApp, server: FakeServer
) -> None:
    """Also one with times that no clock can show."""
    app.become_ready()
    app.say("user", "hello")
    for time in ("0001-01-01T00:00:00+01:00", "9999-12-31T23:59:60Z"):
        app.messages[-1] = Message(1, "hello", "user", time)
        async with running_agent(app, server) as agent:
            session = await server.session(len(server.sessions) + 1)
            failed = await session.sync(1)
            assert "invalid time" in failed.sync_failed.reason
            app.messages[-1] = Message(1, "hello", "user", rfc3339(1))
            await until(lambda: server.store.contents == ["", "hello"])
            assert not agent.done()


async def test_a_flood_of_events_fails_the_fetch_and_is_not_kept(
    app: FakeTaskApp, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_MAX_NEWER_BYTES", 100_000)
    app.become_ready()
    app.say("user", "hello")
    async with running_agent(app, server):
        session = await server.session()
        await until(lambda: server.store.contents == ["", "hello"])
        async with app.handling_post():  # so that the list does not come
            session.send(pb.ServerMessage(sync=pb.Sync(id=1)))
            for number in range(1000, 1500):
                app.emit_stale(Message(number, "x" * 1000, "agent", rfc3339(number)))
                await asyncio.sleep(0)
            failed = await session.answer(1, timeout=15)
        assert "too much content during one fetch" in failed.sync_failed.reason
        done = await session.sync(2)
        assert done.HasField("sync_done")
    assert server.store.contents == ["", "hello"]
