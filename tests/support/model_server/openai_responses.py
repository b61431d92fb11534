"""OpenAI's Responses, streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.support.model_server.script import Asked, Block, Call, Reply, chunks, last_of_user

PATH = "/v1/responses"
_USAGE = {
    "input_tokens": 10,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 10,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 20,
}


def asked(body: dict[str, Any]) -> Asked:
    """Return the last message of the user. Each call is a round, like each message."""
    items = body["input"]
    if isinstance(items, str):
        return Asked((items,), 0)
    return last_of_user(_role_and_texts(item) for item in items)


def streamed(number: int, body: dict[str, Any], reply: Reply) -> Iterator[str]:
    """Yield the events of one answer."""
    response = {
        "id": f"resp_{number:08}",
        "object": "response",
        "created_at": 0,
        "model": body["model"],
        "status": "in_progress",
        "output": [],
    }
    yield _event("response.created", response=response)
    items = [_item(number, at, block) for at, block in enumerate(reply.blocks)]
    for at, (item, block) in enumerate(zip(items, reply.blocks, strict=True)):
        yield from _streamed_item(at, item, block)
    done = {**response, "status": "completed", "output": items, "usage": _USAGE}
    yield _event("response.completed", response=done)


def _streamed_item(at: int, item: dict[str, Any], block: Block) -> Iterator[str]:
    place = {"output_index": at, "item_id": item["id"]}
    if isinstance(block, Call):
        begun = {**item, "arguments": "", "status": "in_progress"}
        yield _event("response.output_item.added", output_index=at, item=begun)
        for piece in chunks(item["arguments"]):
            yield _event("response.function_call_arguments.delta", **place, delta=piece)
    else:
        part = {**place, "content_index": 0}
        empty = {"type": "output_text", "text": "", "annotations": []}
        begun = {**item, "content": [], "status": "in_progress"}
        yield _event("response.output_item.added", output_index=at, item=begun)
        yield _event("response.content_part.added", **part, part=empty)
        for piece in chunks(block.text):
            yield _event("response.output_text.delta", **part, delta=piece)
        yield _event("response.output_text.done", **part, text=block.text)
        yield _event("response.content_part.done", **part, part=item["content"][0])
    yield _event("response.output_item.done", output_index=at, item=item)


def _role_and_texts(item: dict[str, Any]) -> tuple[str, list[str]]:
    if item.get("type", "message") != "message":
        return ("assistant" if item["type"].endswith("_call") else "tool", [])
    content = item["content"]
    parts = [{"text": content}] if isinstance(content, str) else content
    return item["role"], [part["text"] for part in parts if "text" in part]


def _item(number: int, at: int, block: Block) -> dict[str, Any]:
    if isinstance(block, Call):
        return {
            "id": f"fc_{number:08}{at:04}",
            "type": "function_call",
            "call_id": f"call_{number:08}{at:04}",
            "name": block.name,
            "arguments": json.dumps(dict(block.arguments)),
            "status": "completed",
        }
    return {
        "id": f"msg_{number:08}{at:04}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": block.text, "annotations": []}],
    }


def _event(kind: str, **fields: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n"
