"""OpenAI's Chat Completions, streamed and whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.support.model_server.script import Asked, Call, Reply, Text, chunks, last_of_user

PATH = "/v1/chat/completions"
_USAGE = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}


def asked(body: dict[str, Any]) -> Asked:
    found = last_of_user(
        (message["role"], _texts(message.get("content"))) for message in body["messages"]
    )
    found.is_streamed = bool(body.get("stream"))
    return found


def whole(number: int, body: dict[str, Any], reply: Reply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": _text(reply)}
    if reply.calls:
        message["tool_calls"] = [_call(number, at, call) for at, call in enumerate(reply.calls)]
    choice = {"index": 0, "message": message, "finish_reason": _finish_reason(reply)}
    return {**_head(number, body, "chat.completion"), "choices": [choice], "usage": _USAGE}


def streamed(number: int, body: dict[str, Any], reply: Reply) -> Iterator[str]:
    """Yield the chunks of one answer."""
    head = _head(number, body, "chat.completion.chunk")
    yield _chunk(head, {"role": "assistant", "content": ""})
    for piece in chunks(_text(reply)):
        yield _chunk(head, {"content": piece})
    for at, call in enumerate(reply.calls):
        made = _call(number, at, call)
        begun = {**made, "function": {"name": call.name, "arguments": ""}}
        yield _chunk(head, {"tool_calls": [begun]})
        for piece in chunks(made["function"]["arguments"]):
            yield _chunk(head, {"tool_calls": [{"index": at, "function": {"arguments": piece}}]})
    yield _chunk(head, {}, _finish_reason(reply))
    yield _data({**head, "choices": [], "usage": _USAGE})
    yield "data: [DONE]\n\n"


def _texts(content: str | list[dict[str, Any]] | None) -> list[str]:
    if content is None:
        return []
    if isinstance(content, str):
        return [content]
    return [part["text"] for part in content if part["type"] == "text"]


def _text(reply: Reply) -> str:
    return "".join(block.text for block in reply.blocks if isinstance(block, Text))


def _call(number: int, at: int, call: Call) -> dict[str, Any]:
    return {
        "index": at,
        "id": f"call_{number:08}{at:04}",
        "type": "function",
        "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))},
    }


def _head(number: int, body: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{number:08}", "object": kind, "created": 0, "model": body["model"]}


def _finish_reason(reply: Reply) -> str:
    return "tool_calls" if reply.calls else "stop"


def _chunk(head: dict[str, Any], delta: dict[str, Any], reason: str | None = None) -> str:
    return _data({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})


def _data(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"
