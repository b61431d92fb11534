"""The bytes of a task app's event stream, cut at any place."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, ClassVar

from tasklogs.agent.sources.agentapi import json as wire
from tasklogs.agent.sources.agentapi.client import Burst, StatusChange, Update, _events
from tasklogs.agent.sources.agentapi.faults import Fault, TaskAppError
from tasklogs.agent.sources.agentapi.sse import EventStream, ServerSentEvent
from tests.fuzz.loop import Loop
from tests.fuzz.target import Target
from tests.fuzz.targets.agentapi_json import message

_LIMIT_BYTES = 512
_CUTS = 8
_BYTE_BY_BYTE = 256
_LINE_END = re.compile(rb"\r\n|\r|\n")

Outcome = tuple[list[ServerSentEvent], str | None]


class AgentApiEvents(Target):
    """The first bytes say where to cut the rest. The events must not depend on the cuts."""

    name: ClassVar[str] = "agentapi_sse"
    max_bytes: ClassVar[int] = 1024
    tokens: ClassVar[Sequence[bytes]] = (
        *(b"event: message_update\n", b"event: status_change\n", b"data: ", b"data:{}\n\n"),
        *(b'{"status":"stable"}', b'"message"', b"\xef\xbb\xbf", b": comment\n", b"data", b"event"),
        *(b"id: 1\n", b"retry: 1\n", b"\n\n", b"\r\n", b"\r"),
    )

    def __init__(self) -> None:
        self._loop = Loop()

    def close(self) -> None:
        self._loop.close()

    def seeds(self) -> Iterable[bytes]:
        cuts = bytes([3, 7, 1, 30, 2, 64, 5, 11])
        first = _event("message_update", _update(0, "ü漢😀\r\n\0"))
        second = _event("message_update", _update(1, "\ud800"))
        stable = _event("status_change", {"status": "stable", "agent_type": "custom"})
        yield cuts + first + second + stable + first
        yield cuts + (first + stable).replace(b"\n", b"\r\n")
        yield cuts + (first + stable).replace(b"\n", b"\r") + stable
        yield cuts + b"\xef\xbb\xbf" + b": hello\n\nretry: 5\nid: x\n" + stable + first
        yield cuts + second + first + stable
        yield cuts + b"data: " + b"x" * 600
        yield cuts + b"data: x\n" * 100 + b"event: status_change\ndata\n\n"
        yield cuts + b"event: status_change\ndata: \xff\n\n" + stable
        yield cuts + b"event: status_change\ndata: " + b"[" * 400 + b"\n\n"

    def run(self, data: bytes) -> None:
        cuts, stream = data[:_CUTS], data[_CUTS:]
        whole = _fed([stream])
        assert _fed(_cut(stream, cuts)) == whole
        if len(stream) < _BYTE_BY_BYTE:
            assert _fed(stream[offset : offset + 1] for offset in range(len(stream))) == whole
        events, refused = whole
        if refused is None:
            assert events == list(_plainly(stream))
        self._loop.run(_agents_view(list(_cut(stream, cuts))))


def _update(id_: int, content: str) -> dict[str, object]:
    made = message(id=id_)
    made["message"] = made.pop("content") and content
    return made


def _event(name: str, data: dict[str, object]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _cut(stream: bytes, cuts: bytes) -> Iterator[bytes]:
    offset = 0
    for length in cuts:
        yield stream[offset : offset + length]
        offset += length
    yield stream[offset:]


def _fed(pieces: Iterable[bytes]) -> Outcome:
    stream = EventStream(_LIMIT_BYTES)
    events: list[ServerSentEvent] = []
    try:
        for piece in pieces:
            events += _checked(stream.feed(piece), events)
    except TaskAppError as error:
        assert error.fault is Fault.NONSENSE
        # A line that is too long is refused at any cut, but not after the same events.
        return events, str(error)
    return events, None


def _checked(
    fed: Iterator[ServerSentEvent], before: list[ServerSentEvent]
) -> list[ServerSentEvent]:
    """Yield the events as they come, so that events before a refusal count."""
    for event in fed:
        assert len(event.data.encode(errors="surrogatepass")) <= _LIMIT_BYTES
        before.append(event)
    return []


def _plainly(stream: bytes) -> Iterator[ServerSentEvent]:
    """Follow the text of the standard line by line, on the whole stream at once."""
    name = b""
    data: list[bytes] = []
    *lines, _ = _LINE_END.split(stream.removeprefix(b"\xef\xbb\xbf"))
    for line in lines:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data:
                joined = b"\n".join(data).decode(errors="surrogatepass")
                yield ServerSentEvent((name or b"message").decode(errors="surrogatepass"), joined)
            name, data = b"", []
        elif field == b"event":
            name = value
        elif field == b"data":
            data.append(value)


class _Response:
    """The parts of an httpx.Response that are used."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces

    async def aiter_raw(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


async def _agents_view(pieces: Sequence[bytes]) -> None:
    response: Any = _Response(pieces)
    has_begun = False
    events = _events(response, 1)
    try:
        async for event in events:
            match event:
                case Burst(shown):
                    assert not has_begun
                    has_begun = True
                    wire.check_order(shown.entries, "/events")
                case Update() | StatusChange():
                    assert has_begun
    except TaskAppError as error:
        assert error.fault in (Fault.NONSENSE, Fault.TORN)
        assert str(error).isprintable()
    finally:
        await events.aclose()
