"""Lines of transcripts in which something has another type than it should."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.acp.source import Acp
from tasklogs.agent.sources.claude_code import ClaudeCode
from tasklogs.agent.sources.codex import Codex
from tasklogs.agent.sources.gemini import Gemini
from tasklogs.agent.sources.jsonl import Jsonl
from tasklogs.agent.sources.options import SourceOptions
from tasklogs.agent.sources.record import Record
from tasklogs.agent.sources.transcript import Transcript
from tests.agents.recording import Recording

_STRANGE: list[Any] = [None, True, 7, -1.5, "", "text", "\ud800", [], [None], [[]], {}, {"a": 1}]
_SOURCES: dict[str, type[Transcript]] = {
    "acp-claude-code": Acp,
    "claude-code": ClaudeCode,
    "codex": Codex,
    "gemini": Gemini,
    "jsonl": Jsonl,
}
_JSONL = [
    {"type": "output", "content": {"a": [1]}, "time": "2026-11-30T12:00:00Z", "id": "1"},
    {"type": "tool_call", "content": "x", "name": "n", "call_id": "c", "epoch": "new"},
]


def lines_of(name: str) -> list[Any]:
    if name == "jsonl":
        return _JSONL
    lines: list[Any] = []
    for phase in Recording.load(name).phases:
        for appended in phase.appended.values():
            lines += appended
    # The long answers make no difference here.
    return [line for line in lines if len(json.dumps(line)) < 5000]


def shape_of(line: dict[str, Any]) -> str:
    """Return the same for lines that a source takes in the same way."""
    update = line.get("params", {}).get("update", {})
    kinds = (line.get("type"), line.get("method"), update.get("sessionUpdate"))
    return str((sorted(line), kinds))


def changed(value: Any) -> Iterator[Any]:
    """Yield `value` with one of its parts replaced by something strange."""
    yield from _STRANGE
    if isinstance(value, dict):
        for key, part in value.items():
            yield {name: other for name, other in value.items() if name != key}
            for other in changed(part):
                yield {**value, key: other}
    elif isinstance(value, list):
        for at, part in enumerate(value[:3]):
            for other in changed(part):
                yield [*value[:at], other, *value[at + 1 :]]


@pytest.mark.parametrize("name", _SOURCES)
async def test_a_strange_line_never_ends_the_source(name: str) -> None:
    source = _SOURCES[name](
        SourceOptions(transcript=Path("s.jsonl"), thoughts=True), Settings(), lambda: 0.0
    )
    records = 0
    seen: set[str] = set()
    for line in lines_of(name):
        shape = shape_of(line)
        if shape in seen:
            continue
        seen.add(shape)
        for other in changed(line):
            for found in source._parsed(json.dumps(other).encode()):
                if isinstance(found, Record):
                    records += 1
                    assert isinstance(found.content, str)
                    assert all(isinstance(one, str) for one in found.names)
        await asyncio.sleep(0)
    assert records > 10
    deep = b'{"type": "output", "content": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert not any(isinstance(one, Record) for one in source._parsed(deep))
