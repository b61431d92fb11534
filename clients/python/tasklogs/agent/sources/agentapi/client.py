"""AgentAPI over HTTP: the whole conversation, and the stream of events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, cast

import httpx

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.agentapi import json as wire
from tasklogs.agent.sources.agentapi.answer import Answer
from tasklogs.agent.sources.agentapi.faults import Fault, TaskAppError
from tasklogs.agent.sources.agentapi.listing import Prefix, read
from tasklogs.agent.sources.agentapi.process import HasFileno, ProcessWitness, reason
from tasklogs.agent.sources.agentapi.sse import EventStream
from tasklogs.log.entry import Entry

_OFF_LOOP_BYTES = 256 * 1024
_MAX_BODY_BYTES = 64 * 1024 * 1024
"""The largest conversation, also as the burst of an event stream. Malicious JSON takes 24 times its
size when it is parsed."""
_MAX_EVENT_BYTES = 32 * 1024 * 1024
_MAX_DETAIL_BYTES = 4096
_DETAIL_SECONDS = 1.0
_EVENT_STREAM = "text/event-stream"
_WANTS_EVENTS = {"Accept": _EVENT_STREAM, "Cache-Control": "no-store"}


@dataclass(frozen=True, slots=True)
class Burst:
    """The first event of a stream: the whole conversation."""

    shown: Answer


@dataclass(frozen=True, slots=True)
class Update:
    """An entry appeared or changed."""

    entry: Entry
    process: int


@dataclass(frozen=True, slots=True)
class StatusChange:
    """The task app's status changed: `running` or `stable`."""

    status: str
    process: int


Event = Burst | Update | StatusChange


class TaskApp:
    """A client of one AgentAPI server. Every failure is a TaskAppError."""

    def __init__(self, url: str, settings: Settings) -> None:
        self._settings = settings
        parsed = httpx.URL(url)
        port = parsed.port or (443 if parsed.scheme == "https" else 80)
        self._witness = ProcessWitness(parsed.host, port, settings.connect_timeout_seconds)
        # No proxy: the task app runs beside the agent. No pool: a reused connection may belong to
        # a process that has exited.
        self._client = httpx.AsyncClient(
            base_url=parsed,
            trust_env=False,
            # Compressed data may expand without limit, and on one machine it saves nothing.
            headers={"Accept-Encoding": "identity"},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # they would accumulate
            timeout=httpx.Timeout(None, connect=settings.connect_timeout_seconds),
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def aclose(self) -> None:
        """Close every connection."""
        self._witness.close()
        await self._client.aclose()

    async def messages(self, known: Prefix | None = None) -> Answer:
        """Fetch the whole conversation. A torn response is fetched once more."""
        try:
            return await self._messages(known)
        except TaskAppError as error:
            if error.fault is not Fault.TORN:
                raise
        return await self._messages(known)

    async def burst(self) -> Answer:
        """Return the whole conversation as a new event stream shows it."""
        async with self.events(is_witness=False) as events:
            async for event in events:
                if isinstance(event, Burst):
                    return event.shown
        raise TaskAppError(Fault.TORN, "/events: it ended before its first status_change")

    @asynccontextmanager
    async def events(self, *, is_witness: bool = True) -> AsyncIterator[AsyncIterator[Event]]:
        """Open an event stream. Its first event is a Burst."""
        process = await self._witness.number()
        try:
            async with self._client.stream("GET", "/events", headers=_WANTS_EVENTS) as response:
                await _check(response, "/events")
                _check_type(response)
                if is_witness:
                    self._witness.watch_stream(_socket(response))
                if not self._witness.still(process):
                    raise TaskAppError(
                        Fault.TORN, "/events: the task app restarted during the request"
                    )
                events = _events(response, process)
                try:
                    yield events
                finally:
                    await events.aclose()
        except httpx.HTTPError as error:
            raise _fault(error, "/events") from None
        finally:
            if is_witness:
                self._witness.watch_stream(None)

    async def _messages(self, known: Prefix | None) -> Answer:
        process = await self._witness.number()
        try:
            async with self._client.stream("GET", "/messages") as response:
                await _check(response, "/messages")
                body = await _read(response)
        except httpx.HTTPError as error:
            raise _fault(error, "/messages") from None
        if len(body) > _OFF_LOOP_BYTES:
            listing = await asyncio.to_thread(read, body, known)
        else:
            listing = read(body, known)
        if not self._witness.still(process):
            raise TaskAppError(Fault.TORN, "/messages: the task app restarted during the request")
        return Answer(
            listing.entries, process, lags=False, skipped=listing.skipped, prefix=listing.prefix
        )


async def _read(response: httpx.Response) -> bytes:
    body = bytearray()
    async with aclosing(_raw(response)) as pieces:
        async for piece in pieces:
            body += piece
            _check_size(len(body), "/messages")
    return bytes(body)


def _raw(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    # It is a generator, whatever its annotation says, and must be closed.
    return cast("AsyncGenerator[bytes, None]", response.aiter_raw())


async def _events(response: httpx.Response, process: int) -> AsyncGenerator[Event, None]:
    async with (
        aclosing(_raw(response)) as pieces,
        aclosing(_of_stream(pieces, process)) as events,
    ):
        async for event in events:
            yield event


async def _of_stream(pieces: AsyncIterator[bytes], process: int) -> AsyncGenerator[Event, None]:
    stream = EventStream(_MAX_EVENT_BYTES)
    burst: list[Entry] | None = []
    burst_bytes = 0
    async for piece in pieces:
        for event in stream.feed(piece):
            if event.event == "message_update":
                entry = wire.message_update(event.data)
                if burst is None:
                    yield Update(entry, process)
                else:
                    burst_bytes += len(event.data)
                    _check_size(burst_bytes, "/events")
                    burst.append(entry)
            elif event.event == "status_change":
                status = wire.status_change(event.data)
                if burst is None:
                    yield StatusChange(status, process)
                else:
                    wire.check_order(burst, "/events")
                    yield Burst(Answer(burst, process, lags=True, status=status))
                    burst = None


async def _check(response: httpx.Response, where: str) -> None:
    code = response.status_code
    if code != 200:
        fault = Fault.DOWN if code >= 500 else Fault.NONSENSE
        told = f"{where}: HTTP {code} {response.reason_phrase}"
        raise TaskAppError(fault, ": ".join(filter(None, (told, await _detail(response)))))
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise TaskAppError(Fault.NONSENSE, f"{where}: compressed, which was not requested")


async def _detail(response: httpx.Response) -> str:
    """Return what AgentAPI says about a request that it refuses (4xx): its allowed hosts, e.g."""
    if not 400 <= response.status_code < 500:
        return ""  # it may quote the conversation
    body = bytearray()
    try:
        async with asyncio.timeout(_DETAIL_SECONDS), aclosing(_raw(response)) as pieces:
            async for piece in pieces:
                body += piece
                if len(body) > _MAX_DETAIL_BYTES:
                    return ""
    except (TimeoutError, httpx.HTTPError):
        return ""
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "text/plain":
        return body.decode(errors="replace").strip()
    try:
        problem = json.loads(body)  # RFC 9457
    except (ValueError, RecursionError):
        return ""
    detail = problem.get("detail") if isinstance(problem, dict) else None
    return detail if isinstance(detail, str) else ""


def _check_type(response: httpx.Response) -> None:
    media_type = response.headers.get("content-type", "").partition(";")[0]
    if media_type.strip().lower() != _EVENT_STREAM:
        raise TaskAppError(Fault.NONSENSE, "/events: not an event stream")


def _check_size(size_bytes: int, where: str) -> None:
    if size_bytes > _MAX_BODY_BYTES:
        raise TaskAppError(Fault.NONSENSE, f"{where}: larger than {_MAX_BODY_BYTES // 2**20} MiB")


def _fault(error: httpx.HTTPError, where: str) -> TaskAppError:
    if isinstance(error, httpx.TimeoutException):
        return TaskAppError(Fault.TIMEOUT, f"{where}: connecting timed out")
    if isinstance(error, httpx.ConnectError):
        cause = error.__cause__ or error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        return TaskAppError(Fault.DOWN, f"{where}: connecting failed: {reason(cause)}")
    return TaskAppError(Fault.TORN, f"{where}: the connection broke")


def _socket(response: httpx.Response) -> HasFileno | None:
    stream: Any = response.extensions.get("network_stream")
    found: HasFileno | None = stream.get_extra_info("socket") if stream is not None else None
    return found
