"""`tasklogs upload` with the real server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from tasklogs import TaskLogsClient
from tasklogs.cli.upload import _entries
from tasklogs.client.entry import LogEntry
from tests.cli.command import Finished, run
from tests.support.fixtures.agent_stream import ScriptedAgent
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.server import Server

SOON = timedelta(seconds=DEADLINE_SECONDS)


@pytest.fixture
async def token_file(server: Server, tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text((await server.create_task("demo", standalone=True)).agent_token + "\n")
    return path


async def upload(server: Server, file: Path, *arguments: str, **variables: str) -> Finished:
    return await run("upload", "--server", server.address, *arguments, str(file), env=variables)


async def stored(server: Server) -> tuple[int, list[LogEntry]]:
    """Return the current epoch and its entries."""
    async with TaskLogsClient(server.address, timeout=SOON) as client:
        log = await client.get("local/demo")
        return log.epoch, await log.all()


def write(file: Path, *lines: Mapping[str, object]) -> None:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


async def test_a_file_that_has_grown_adds_what_is_new(
    server: Server, token_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "log.jsonl"
    lines: list[dict[str, object]] = [
        {"type": "input", "content": "6 x 7?", "time": "2026-11-30T12:00:00Z"},
        {"type": "output", "content": "a dra", "time": "2026-11-30T12:00:01Z", "id": "m1"},
        {"type": "output", "content": "a draft", "time": "2026-11-30T12:00:02Z", "id": "m1"},
        {"type": "tool_call", "content": {"a": 1}, "time": "2026-11-30T12:00:03Z", "name": "sh"},
    ]
    for count in (3, 4):
        write(file, *lines[:count])
        finished = await upload(server, file, "--token-file", str(token_file))
        assert (finished.code, finished.stderr) == (0, "")
        assert finished.stdout.startswith(f"uploaded {count - 1} entries: the log is at revision ")
    epoch, entries = await stored(server)
    assert epoch == 1
    assert [one.content for one in entries] == ["6 x 7?", "a draft", '{"a": 1}']
    assert entries[-1].name == "sh"


async def test_names_that_are_too_long_stay_different(
    server: Server, token_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "log.jsonl"
    write(file, *({"type": "output", "content": one, "id": "x" * 300 + one} for one in "ab"))
    token = token_file.read_text().strip()
    finished = await upload(server, file, TASKLOGS_AGENT_TOKEN=token)
    assert finished.code == 0, finished.stderr
    _, entries = await stored(server)
    assert [one.content for one in entries] == ["a", "b"]
    assert entries[0].source_id != entries[1].source_id


async def test_it_says_what_is_wrong(server: Server, token_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    finished = await upload(server, file)
    assert finished.code == 2
    assert "no agent token: give --token-file FILE" in finished.stderr
    finished = await upload(server, file, "--token-file", str(token_file))
    assert finished.code == 1
    assert "No such file or directory" in finished.stderr
    write(file, {"type": "output", "content": "x"}, {"type": "secret", "content": "x"})
    async with ScriptedAgent.connect(server, token_file.read_text().strip()):
        finished = await upload(server, file, "--token-file", str(token_file))
    assert finished.code == 1
    assert "SESSION_OPEN" in finished.stderr
    assert "1 line is no entry: it is left out" in finished.stderr


def test_entries_are_those_that_an_agent_would_store(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    write(
        path,
        {"type": "output", "content": "of an epoch before"},
        {"type": "tool_call", "content": "ls", "id": "1", "epoch": "new"},
        {"type": "tool_result", "content": "a file", "id": "1"},
        {"type": "output", "content": "a draft", "id": "2"},
        {"type": "output", "content": "done", "id": "2", "name": ""},
        {"type": "output", "content": "last", "name": "\ud800"},
    )
    found = _entries(path)
    assert [entry.content for entry in found] == ["ls", "a file", "done", "last"]
    assert found[-1].name == "\ufffd"
