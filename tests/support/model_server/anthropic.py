"""Anthropic's Messages, streamed and whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.support.model_server.script import Asked, Block, Call, Reply, chunks, last_of_user

PATH = "/v1/messages"
COUNT_PATH = "/v1/messages/count_tokens"
_USAGE = {"input_tokens": 10, "output_tokens": 10}


def asked(body: dict[str, Any]) -> Asked:
    found = last_of_user(
        (message["role"], _texts(message["content"])) for message in body["messages"]
    )
    found.is_streamed = bool(body.get("stream"))
    return found


def whole(number: int, body: dict[str, Any], reply: Reply) -> dict[str, Any]:
    content = [_block(number, at, block) for at, block in enumerate(reply.blocks)]
    return {
        **_message(number, body),
        "content": content,
        "stop_reason": _stop_reason(reply),
        "usage": _USAGE,
    }


def streamed(number: int, body: dict[str, Any], reply: Reply) -> Iterator[str]:
    """Yield the events of one answer."""
    message = {**_message(number, body), "content": [], "stop_reason": None, "usage": _USAGE}
    yield _event("message_start", message=message)
    for at, block in enumerate(reply.blocks):
        yield from _streamed_block(number, at, block)
    delta = {"stop_reason": _stop_reason(reply), "stop_sequence": None}
    yield _event("message_delta", delta=delta, usage=_USAGE)
    yield _event("message_stop")


def _streamed_block(number: int, at: int, block: Block) -> Iterator[str]:
    if isinstance(block, Call):
        empty = {**_block(number, at, block), "input": {}}
        pieces = chunks(json.dumps(dict(block.arguments)))
        deltas = ({"type": "input_json_delta", "partial_json": piece} for piece in pieces)
    else:
        empty = {"type": "text", "text": ""}
        deltas = ({"type": "text_delta", "text": piece} for piece in chunks(block.text))
    yield _event("content_block_start", index=at, content_block=empty)
    for delta in deltas:
        yield _event("content_block_delta", index=at, delta=delta)
    yield _event("content_block_stop", index=at)


def _texts(content: str | list[dict[str, Any]]) -> list[str]:
    if isinstance(content, str):
        return [content]
    return [block["text"] for block in content if block["type"] == "text"]


def _block(number: int, at: int, block: Block) -> dict[str, Any]:
    if isinstance(block, Call):
        call_id = f"toolu_{number:08}{at:04}"
        arguments = dict(block.arguments)
        return {"type": "tool_use", "id": call_id, "name": block.name, "input": arguments}
    return {"type": "text", "text": block.text}


def _message(number: int, body: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"msg_{number:08}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "stop_sequence": None,
    }


def _stop_reason(reply: Reply) -> str:
    return "tool_use" if reply.calls else "end_turn"


def _event(kind: str, **fields: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n"
