"""What `tasklogs upload` takes from a file."""

from __future__ import annotations

import json
from pathlib import Path

from tasklogs.cli.upload import _entries


def test_entries_are_those_that_an_agent_would_store(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    long = "x" * 300
    lines = [
        {"type": "output", "content": "of an epoch before"},
        {"type": "tool_call", "content": "ls", "id": "1", "epoch": "new"},
        {"type": "tool_result", "content": "a file", "id": "1"},
        {"type": "output", "content": "a draft", "id": "2"},
        {"type": "output", "content": "done", "id": "2"},
        {"type": "output", "content": "one", "id": long + "1"},
        {"type": "output", "content": "two", "id": long + "2", "name": "\ud800"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    found = _entries(path)
    assert [entry.content for entry in found] == ["ls", "a file", "done", "one", "two"]
    assert found[-1].source_id != found[-2].source_id
    assert found[-1].name == "\ufffd"
