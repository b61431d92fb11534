"""`make demo` runs to its end and leaves nothing behind."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from tests.cli.command import environment

DEMO = Path(__file__).parents[2] / "demo" / "run"
DEADLINE_SECONDS = 110


@pytest.fixture
def temporary() -> Iterator[Path]:
    # Not pytest's directory: the path of a Unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="demo-") as directory:
        yield Path(directory)


@asynccontextmanager
async def demo(temporary: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        DEMO,
        env=environment({"TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def processes_that_name(directory: Path) -> list[list[str]]:
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        cmdline: list[str] = process.info["cmdline"] or []
        environ: dict[str, str] = process.info["environ"] or {}
        if str(directory) in " ".join(cmdline) or environ.get("TMPDIR") == str(directory):
            found.append(cmdline)
    return found


async def test_it_shows_each_kind_of_read_and_leaves_nothing_behind(temporary: Path) -> None:
    async with demo(temporary) as process:
        story = (await process.communicate())[0].decode()

    assert process.returncode == 0, story
    assert '"snapshot": false' in story
    assert "local/demo is paused: the log as stored at" in story
    assert "local/demo is initializing: the log as stored at" in story
    assert "TASK_STATE_CONFLICT" in story
    assert "local/demo is in error: the log as stored at" in story
    assert list(temporary.iterdir()) == []
    assert processes_that_name(temporary) == []


async def test_a_demo_that_is_ended_early_leaves_nothing_behind(temporary: Path) -> None:
    async with demo(temporary) as process:
        assert process.stdout is not None
        while b"tasklogs agent" not in await process.stdout.readline():
            pass
        process.send_signal(signal.SIGTERM)
        await process.communicate()

    assert process.returncode == 143
    assert list(temporary.iterdir()) == []
    assert processes_that_name(temporary) == []
