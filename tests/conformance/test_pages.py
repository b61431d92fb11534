"""Follows the page of each language: from an empty folder to a follow that survives a restart."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest

from tasklogs import Entry, Publisher, TaskLogsClient
from tests.conformance.drivers import ROOT, missing
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.ports import lasting_port
from tests.support.fixtures.postgres import PostgresServer
from tests.system.end_to_end.programs import program, serve_command

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_WRITTEN_PORT = "50051"


async def shell(script: str, folder: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *("sh", "-euc", script), cwd=folder, env=os.environ | {"CHECKOUT": str(ROOT)}
    )
    assert await process.wait() == 0


async def line_with(text: str, output: asyncio.StreamReader) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while text.encode() not in (line := await output.readline()):
            assert line, "the program ended"


def blocks_of(page: str) -> list[str]:
    """Return the blocks of code of a page."""
    return [text for _, text in _BLOCK.findall((ROOT / "docs" / page).read_text())]


@pytest.mark.timeout(300)
async def test_the_page_for_go(postgres_server: PostgresServer, tmp_path: Path) -> None:
    why = missing("go")
    if why is not None:
        pytest.skip(why)
    prepare, code, run = blocks_of("go.md")
    assert run.splitlines() == ["go mod tidy", "go run ."]
    port, folder = lasting_port(), tmp_path / "reader"
    folder.mkdir()
    await shell(prepare, folder)
    (folder / "main.go").write_text(code.replace(_WRITTEN_PORT, str(port)))
    # `go run` would leave the program that it starts behind.
    await shell("go mod tidy && go build -o reader .", folder)

    await goes_on_after_a_restart(
        (folder / "reader",), folder, port, postgres_server, tmp_path, "reconnecting: Unavailable"
    )


@pytest.mark.timeout(300)
async def test_the_page_for_typescript(postgres_server: PostgresServer, tmp_path: Path) -> None:
    why = missing("typescript")
    if why is not None:
        pytest.skip(why)
    prepare, code, run = blocks_of("typescript.md")
    assert run == "node reader.js\n"
    port, folder = lasting_port(), tmp_path / "reader"
    folder.mkdir()
    # What is installed in the checkout is used by other tests at the same time.
    install, *others = prepare.splitlines()
    assert "npm ci" in install
    await shell("\n".join(others), folder)
    (folder / "reader.js").write_text(code.replace(_WRITTEN_PORT, str(port)))

    await goes_on_after_a_restart(
        ("node", "reader.js"), folder, port, postgres_server, tmp_path, "reconnecting"
    )


async def goes_on_after_a_restart(
    command: Sequence[str | Path],
    folder: Path,
    port: int,
    postgres_server: PostgresServer,
    tmp_path: Path,
    reconnecting: str,
) -> None:
    address = f"127.0.0.1:{port}"
    async with program(tmp_path / "server", *serve_command(port, postgres_server.dsn())) as server:
        async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(DEADLINE_SECONDS):
            await channel.channel_ready()
        async with TaskLogsClient(address) as client:
            created = await client.create_task("demo", standalone=True)
        async with Publisher(address, token=created.agent_token) as log:
            await log.append(Entry.input("before the restart"))
            await log.flush()
            reader = await asyncio.create_subprocess_exec(
                *command, cwd=folder, stdout=asyncio.subprocess.PIPE
            )
            assert reader.stdout is not None
            try:
                await line_with("#0 before the restart", reader.stdout)
                await server.kill()
                await line_with(reconnecting, reader.stdout)
                await server.start()
                await log.append(Entry.output("after the restart"))
                await line_with("#1 after the restart", reader.stdout)
                reader.send_signal(signal.SIGINT)
                async with asyncio.timeout(DEADLINE_SECONDS):
                    assert await reader.wait() == 0
            finally:
                if reader.returncode is None:
                    reader.kill()
                    await reader.wait()
