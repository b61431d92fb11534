"""Gemini's generateContent, streamed and whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.support.model_server.script import Asked, Block, Call, Reply, Text, chunks, last_of_user

STREAM_PATH = "/v1beta/models/{model}:streamGenerateContent"
WHOLE_PATH = "/v1beta/models/{model}:generateContent"
COUNT_PATH = "/v1beta/models/{model}:countTokens"
_USAGE = {"promptTokenCount": 10, "candidatesTokenCount": 10, "totalTokenCount": 20}


def asked(body: dict[str, Any]) -> Asked:
    return last_of_user((_role(content), _texts(content)) for content in body["contents"])


def whole(number: int, body: dict[str, Any], reply: Reply) -> dict[str, Any]:
    del number, body
    return _answer([_part(block) for block in reply.blocks], "STOP")


def streamed(number: int, body: dict[str, Any], reply: Reply) -> Iterator[str]:
    """Yield the answers that make up one."""
    del number, body
    for block in reply.blocks:
        for piece in _pieces(block):
            yield _data(_answer([_part(piece)]))
    yield _data(_answer([{"text": ""}], "STOP"))


def _role(content: dict[str, Any]) -> str:
    return "assistant" if content.get("role") == "model" else "user"


def _texts(content: dict[str, Any]) -> list[str]:
    return [part["text"] for part in content["parts"] if "text" in part]


def _pieces(block: Block) -> Iterator[Block]:
    if isinstance(block, Call):
        yield block
    else:
        yield from map(Text, chunks(block.text))


def _part(block: Block) -> dict[str, Any]:
    if isinstance(block, Call):
        return {"functionCall": {"name": block.name, "args": dict(block.arguments)}}
    return {"text": block.text}


def _answer(parts: list[dict[str, Any]], reason: str | None = None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
    if reason is not None:
        candidate["finishReason"] = reason
    return {"candidates": [candidate], "usageMetadata": _USAGE, "modelVersion": "scripted"}


def _data(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"
