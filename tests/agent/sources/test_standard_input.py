"""`my-program | tasklogs agent --source jsonl --transcript -`, as processes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.jsonl import Jsonl
from tasklogs.agent.sources.options import SourceOptions
from tasklogs.agent.sources.standard_input import OpenFile
from tasklogs.agent.sources.transcript import Lines, _Readable
from tests.agent.sources.test_jsonl import contents, token_of
from tests.cli.command import TASKLOGS, environment
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until
from tests.support.fixtures.server import MakeServer, Server


@pytest.fixture
async def server(make_server: MakeServer) -> AsyncIterator[Server]:
    async with make_server() as running:
        yield running


def line(content: str) -> bytes:
    return json.dumps({"type": "output", "content": content}).encode() + b"\n"


async def start(
    server: Server, token: str, stdin: int, stderr: int = subprocess.DEVNULL
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(str(TASKLOGS), "agent", f"--server={server.address}"),
        *("--source=jsonl", "--transcript=-"),
        env=environment({"TASKLOGS_AGENT_TOKEN": token}),
        stdin=stdin,
        stderr=stderr,
    )


async def test_a_pipe_is_live_until_its_end(server: Server) -> None:
    process = await start(server, await token_of(server), subprocess.PIPE)
    assert process.stdin is not None
    said: list[str] = []
    for number in range(20):
        said.append(str(number))
        process.stdin.write(line(said[-1]))
        await process.stdin.drain()
        assert await contents(server) == said
    process.stdin.write(line("last").rstrip())  # without a newline
    process.stdin.close()
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await process.wait() == 0
    assert await contents(server, live=False) == [*said, "last"]


async def test_nobody_waits_for_input_that_has_ended(server: Server) -> None:
    """Neither the goodbye, which reads once more, nor a live read meanwhile."""
    process = await start(server, await token_of(server), subprocess.PIPE, subprocess.PIPE)
    async with asyncio.timeout(DEADLINE_SECONDS):
        _, logged = await process.communicate(line("0"))
    assert process.returncode == 0
    assert b"source.ended" in logged
    assert b"last_sync.failed" not in logged
    assert await contents(server, live=False) == ["0"]


async def test_a_file_as_standard_input_is_stored_whole(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(line(str(number)) for number in range(2000)))
    with path.open("rb") as file:
        process = await start(server, await token_of(server), file.fileno())
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await process.wait() == 0
    assert await contents(server, live=False) == [str(number) for number in range(2000)]


async def test_the_end_waits_until_everything_is_stored_and_answers_reads() -> None:
    reading, writing = os.pipe()
    source = Piped(reading)
    running = asyncio.create_task(source.run())
    try:
        os.write(writing, line("the only copy"))
        os.close(writing)
        await until(lambda: source._has_ended)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await source._read_now()
        assert not running.done()
        assert source._journal.last is not None
        source._journal.last.stored_version = source._journal.last.version
        source._journal._tell()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await running
    finally:
        running.cancel()
        await asyncio.wait({running})
        os.close(reading)


class Piped(Jsonl):
    """Reads a pipe as if it were standard input."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        super().__init__(SourceOptions(transcript=Path("-")), Settings(), lambda: 0.0)

    def opened(self, path: Path) -> Lines:
        return OpenFile(self._descriptor)

    def _waking_by_descriptor(self) -> _Readable:
        return _Readable(self._descriptor, self._wake, self._settings)
