"""What `--redact` matches is in no table, in no byte on the wire and in no log.

A real agent's process at debug level, a proxy that keeps every byte, a real server and Postgres.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tasklogs import LogSource, TaskLogsClient
from tasklogs.errors import TaskStateConflict, Unavailable
from tests.cli.command import TASKLOGS, environment
from tests.support.fakes.faulty_proxy import Direction, FaultyProxy, _Link
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.server import MakeServer

_SECRET = "sk-0123456789abcdefghij"
_PATTERN = "sk-[a-z0-9]{20}"
_SHOWN = "What is around the key is shown."


class RecordingProxy(FaultyProxy):
    """Keeps every byte that passes."""

    heard = b""

    def passed(self, link: _Link, direction: Direction, data: bytes, passed: bytes) -> None:
        self.heard += passed
        super().passed(link, direction, data, passed)


def claude_code() -> Iterator[dict[str, Any]]:
    """Yield lines with the key in each field that is read, and in lines that are left out."""
    call = {"type": "tool_use", "id": f"id-{_SECRET}", "name": f"run-{_SECRET}"}
    yield said("assistant", [{**call, "input": {"command": f"curl -H {_SECRET}"}}])
    output = [{"type": "text", "text": f"key: {_SECRET}\n{_SHOWN}"}]
    result = {"type": "tool_result", "tool_use_id": f"id-{_SECRET}", "content": output}
    yield said("user", [result, {"type": _SECRET}])
    yield {"type": _SECRET, "content": _SECRET}
    yield said("assistant", [{"type": "text", "text": f"The key is {_SECRET}."}])


def said(kind: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    message = {"id": f"msg-{_SECRET}", "role": kind, "content": content}
    return {"type": kind, "uuid": _SECRET, "timestamp": "2026-01-01T00:00:00Z", "message": message}


def acp() -> Iterator[dict[str, Any]]:
    """Yield an answer whose chunks divide the key, and a tool that returns it."""
    tool = {"sessionUpdate": "tool_call", "toolCallId": "t", "title": f"Read {_SECRET}"}
    done = {"status": "completed", "rawOutput": f"key: {_SECRET}\n{_SHOWN}"}
    updates: list[dict[str, Any]] = [{**tool, **done}]
    for piece in ("The key is ", _SECRET[:9], _SECRET[9:], "."):
        content = {"type": "text", "text": piece}
        updates.append({"sessionUpdate": "agent_message_chunk", "content": content})
    for update in updates:
        yield {"method": "session/update", "params": {"sessionId": _SECRET, "update": update}}
    prompt = [{"type": "text", "text": "Thanks."}]
    params = {"sessionId": _SECRET, "prompt": prompt}
    yield {"id": 1, "method": "session/prompt", "params": params}


@pytest.mark.parametrize(
    ("source", "lines", "last"),
    [("claude-code", claude_code, "The key is [redacted]."), ("acp", acp, "Thanks.")],
    ids=["claude-code", "acp"],
)
async def test_a_key_in_a_transcript_is_nowhere(
    make_server: MakeServer,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    source: str,
    lines: Any,
    last: str,
) -> None:
    path = tmp_path / "session.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines()))
    async with make_server() as server, RecordingProxy(_port(server.address)) as network:
        token = (await server.create_task("demo", standalone=True)).agent_token
        agent = await asyncio.create_subprocess_exec(
            *(str(TASKLOGS), "agent", f"--server={network.address}", f"--source={source}"),
            *(f"--transcript={path}", f"--redact={_PATTERN}", "--log-level=debug"),
            env=environment({"TASKLOGS_AGENT_TOKEN": token}),
        )
        try:
            contents = await _live(server.address)
        finally:
            agent.kill()
            await agent.wait()
        tables = await _dump(server.dsn)
    assert contents[-1] == last
    assert _SECRET not in "".join(contents)
    logged = "".join(capfd.readouterr())
    assert "stream.opened" in logged
    places = {"wire": network.heard, "tables": tables.encode(), "logs": logged.encode()}
    for name, found in places.items():
        assert _hidden(found) == set(), name
    # Where the key would be, what is around it is found.
    assert _SHOWN.encode() in network.heard
    assert _SHOWN.encode().hex() in tables


def _hidden(found: bytes) -> set[str]:
    """Return the forms of the key that are there: its text, or in hexadecimal as in a dump."""
    forms = {_SECRET, _SECRET.encode().hex(), _SECRET[3:]}
    return {form for form in forms if form.encode() in found}


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


async def _live(address: str) -> list[str]:
    async with TaskLogsClient(address) as client, asyncio.timeout(DEADLINE_SECONDS):
        while True:
            try:
                log = await client.get("local/demo", source=LogSource.LIVE)
            except (TaskStateConflict, Unavailable):  # the agent has not connected yet
                await asyncio.sleep(0.05)
            else:
                return [text for entry in await log.all() for text in (entry.name, entry.content)]


async def _dump(dsn: str) -> str:
    """Return every row of every table as text."""
    connection = await asyncpg.connect(dsn)
    try:
        names = await connection.fetch(
            "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        rows = []
        for (name,) in names:
            rows += await connection.fetch(f"SELECT one::text FROM {name} AS one")
        return "\n".join(row[0] for row in rows)
    finally:
        await connection.close()
