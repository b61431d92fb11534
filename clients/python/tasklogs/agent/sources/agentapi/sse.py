"""Parses server-sent events of an untrusted sender, with a limit on their size.

httpx-sse is not used: it decodes with any charset that the response names, and buffers a line
without a limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from tasklogs.agent.sources.agentapi.faults import Fault, TaskAppError

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BOM = b"\xef\xbb\xbf"


class ServerSentEvent(NamedTuple):
    """One event: its type, and its lines of data."""

    event: str
    data: str


class EventStream:
    """Turns pieces of a `text/event-stream` into events. The pieces may be cut anywhere.

    It follows https://html.spec.whatwg.org/multipage/server-sent-events.html, but refuses text that
    is not UTF-8. `limit_bytes` is the largest size of an event.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._line = bytearray()
        self._event = ""
        self._data: list[str] = []
        self._data_bytes = 0
        self._ended_with_return = False
        self._is_first_line = True

    def feed(self, piece: bytes) -> Iterator[ServerSentEvent]:
        """Yield the events that end in `piece`. Raises TaskAppError (NONSENSE)."""
        if not piece:
            return
        begin = 0
        if self._ended_with_return and piece.startswith(b"\n"):
            begin = 1  # the second half of a CR LF
        self._ended_with_return = piece.endswith(b"\r")
        for end in _LINE_END.finditer(piece, begin):
            self._hold(piece[begin : end.start()])
            begin = end.end()
            event = self._end_line()
            if event is not None:
                yield event
        self._hold(piece[begin:])

    def _hold(self, part: bytes) -> None:
        self._line += part
        if len(self._line) + self._data_bytes > self._limit_bytes:
            raise TaskAppError(
                Fault.NONSENSE, f"/events: an event is larger than {self._limit_bytes:,} bytes"
            )

    def _end_line(self) -> ServerSentEvent | None:
        line, self._line = bytes(self._line), bytearray()
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._end_event()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            self._event = _text(value)
        elif name == b"data":
            self._data.append(_text(value))
            self._data_bytes += len(value) + 1
        return None  # comments, ids and retry times are not used here

    def _end_event(self) -> ServerSentEvent | None:
        event, data = self._event or "message", self._data
        self._event, self._data, self._data_bytes = "", [], 0
        return ServerSentEvent(event, "\n".join(data)) if data else None


def _text(value: bytes) -> str:
    try:
        # As json.loads reads `/messages`: both must give the same content.
        return value.decode(errors="surrogatepass")
    except UnicodeDecodeError:
        raise TaskAppError(Fault.NONSENSE, "/events: not UTF-8") from None
