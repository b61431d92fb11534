"""Messages of the Agent Client Protocol, and what the source makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.acp.source import Acp
from tasklogs.agent.sources.options import SourceOptions
from tasklogs.agent.sources.record import Found, LeftOut, NewEpoch, Record
from tasklogs.log.entry import EntryType

SESSION = "s1"
Message = dict[str, Any]


def source(*, thoughts: bool = False, redact: tuple[str, ...] = ()) -> Acp:
    options = SourceOptions(transcript=Path("acp.jsonl"), thoughts=thoughts, redact=redact)
    return Acp(options, Settings(), lambda: 0.0)


def request(request_id: Any, method: str, /, **params: Any) -> Message:
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


def result(request_id: Any, **fields: Any) -> Message:
    return {"jsonrpc": "2.0", "id": request_id, "result": fields}


def failure(request_id: Any, message: str) -> Message:
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": -32603, "message": message}}


def update(kind: str, /, session: str = SESSION, **fields: Any) -> Message:
    said = {"sessionUpdate": kind, **fields}
    return {"method": "session/update", "params": {"sessionId": session, "update": said}}


def text(said: str) -> dict[str, str]:
    return {"type": "text", "text": said}


def chunk(said: str, message: str | None = None, *, of: str = "agent_message") -> Message:
    more = {} if message is None else {"messageId": message}
    return update(f"{of}_chunk", content=text(said), **more)


def prompt(request_id: Any, *said: str | dict[str, Any], session: str = SESSION) -> Message:
    blocks = [text(one) if isinstance(one, str) else one for one in said]
    return request(request_id, "session/prompt", sessionId=session, prompt=blocks)


def new_session(request_id: Any, session: str = SESSION) -> list[Message]:
    return [request(request_id, "session/new", cwd="/"), result(request_id, sessionId=session)]


def load(request_id: Any, *repeated: Message, session: str = SESSION) -> list[Message]:
    loading = request(request_id, "session/load", sessionId=session)
    return [loading, *repeated, result(request_id)]


def turn(request_id: Any, said: str, answer: str) -> list[Message]:
    return [prompt(request_id, said), chunk(answer), result(request_id, stopReason="end_turn")]


def found(messages: list[Message], read: Acp | None = None) -> Iterator[Found]:
    read = read or source()
    for message in messages:
        yield from read.parse(json.dumps(message).encode())


def entries(messages: list[Message], read: Acp | None = None) -> list[list[tuple[EntryType, str]]]:
    """Return the entries of each epoch, put together."""
    epochs: list[list[tuple[EntryType, str]]] = [[]]
    for one in found(messages, read):
        match one:
            case NewEpoch():
                epochs.append([])
            case Record():
                before = epochs[-1].pop()[1] if one.extends or one.replaces else ""
                text = before + one.content if one.extends else one.content
                epochs[-1].append((one.type, text))
    return epochs


def left_out(messages: list[Message]) -> list[str]:
    return [one.kind for one in found(messages) if isinstance(one, LeftOut)]
