"""The answer of a task app to `GET /messages`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import ClassVar

from tasklogs.agent.sources.agentapi import json as wire
from tasklogs.agent.sources.agentapi import listing
from tasklogs.agent.sources.agentapi.faults import Fault, TaskAppError
from tasklogs.log.append import Append
from tasklogs.log.entry import Entry
from tasklogs.log.truncation import MAX_CONTENT_BYTES
from tasklogs.publish import messages
from tasklogs_server.services import agent_codec
from tests.fuzz.pieces import joined, split
from tests.fuzz.target import Target

_MADE_UP = b"!"
_TIME = "2026-11-22T17:06:18.123456789Z"


def message(**changes: object) -> dict[str, object]:
    return {"id": 0, "content": "hi", "role": "agent", "time": _TIME, **changes}


def body(*items: object) -> bytes:
    return json.dumps({"messages": items}, separators=(",", ":")).encode()


class AgentApiBodies(Target):
    """A body is refused in one line, or makes entries that the server accepts unchanged."""

    name: ClassVar[str] = "agentapi_json"
    tokens: ClassVar[Sequence[bytes]] = (
        *(b'"messages"', b'"id"', b'"content"', b'"role"', b'"time"', b'"user"', b'"agent"'),
        *(b'{"id":', b"2147483647", b"2147483648", b"true", b"1.0", b"\\ud800", b"\\u0000"),
        *(b'"0001-01-01T00:00:00+01:00"', b'"9999-12-31T23:59:60Z"', _TIME.encode()),
    )

    def seeds(self) -> Iterable[bytes]:
        user = message(id=1, role="user", content="ü\0\ud800\U0001f642\x1b[2J")
        yield body()
        yield body(message(), user, message(id=7, time="1969-12-31T23:59:59+01:00"))
        yield body(message(role="")) + b"\n"
        yield body(message(id=1), message(id=0))
        yield body(message(id=True), message(id=1.5), message(id=-1), message(id=2**31))
        yield body(message(time="0001-01-01T00:00:00+01:00"))
        yield body(message(time="9999-12-31T23:59:60Z"))
        yield b'{"messages":[],"messages":[1e400,-0,NaN]}'
        yield b"[" * 2000
        yield body(message(), user)[:-1] + b',"x":' + b'{"id":' * 200
        yield body(message()).decode().encode("utf-16")

        for time in ("2016-12-31T23:59:60.999999999999Z", "2026-02-29T24:00:00-23:59", _TIME):
            yield _MADE_UP + joined([b"0", "ü\0😀".encode(), b"user", time.encode()] * 2)

    def run(self, data: bytes) -> None:
        if data[:1] == _MADE_UP:
            data = _made_up(split(data[1:]))
        listed = _entries_or_none(data)
        if listed is not None:
            _check(listed)
        known = listing.Prefix(len(data) // 2, b"", 1, 0)
        try:
            read = listing.read(data, known)
        except TaskAppError:
            assert listed is None
        else:
            assert read.entries == listed


def _made_up(pieces: list[bytes]) -> bytes:
    """Return a body that is JSON, with arbitrary messages."""
    texts = [json.dumps(piece.decode("latin-1")) for piece in pieces]
    made: list[str] = []
    while len(texts) >= 4:
        number, content, role, time, *texts = texts
        number = number.strip('"')
        id_ = (
            number if number.isascii() and number.isdigit() and number[0] != "0" else str(len(made))
        )
        made.append(f'{{"id":{id_},"content":{content},"role":{role},"time":{time}}}')
    return f'{{"messages":[{",".join(made)}]}}'.encode()


def _entries_or_none(data: bytes) -> list[Entry] | None:
    try:
        return wire.messages(data)
    except TaskAppError as error:
        assert error.fault in (Fault.NONSENSE, Fault.TORN)
        assert len(str(error)) <= 200
        assert str(error).isprintable()
        return None


def _check(entries: list[Entry]) -> None:
    assert all(earlier.id < later.id for earlier, later in pairwise(entries))
    assert all(len(entry.content) <= MAX_CONTENT_BYTES for entry in entries)
    sent = messages.log_append(Append(1, open_epoch=True, entries=entries))
    received = agent_codec.append_at_once(sent.append)
    assert list(received.entries) == entries
