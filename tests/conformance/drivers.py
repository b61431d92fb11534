"""Starts the drivers of the client libraries, and talks to them."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("python", "go")
_BUILD_SECONDS = 600
_MOST_LINE_BYTES = 16 * 1024 * 1024


def missing(language: str) -> str | None:
    """Return why the driver of `language` cannot run here; None if it can."""
    if language == "go" and shutil.which("go") is None:
        return "no Go here: the Go client is not tested"
    return None


def command(language: str, directory: Path) -> Sequence[str]:
    """Return the command of a driver. If it must be built, it is built in `directory`."""
    if language == "python":
        return (sys.executable, "-m", "tests.conformance.python_driver")
    program = directory / "driver"
    build = ("go", "build", "-o", str(program), "./internal/conformance")
    subprocess.run(build, cwd=ROOT / "clients/go", check=True, timeout=_BUILD_SECONDS)
    return (str(program),)


class Driver:
    """A driver that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def start(self, target: str, **order: Any) -> None:
        """Tell it to follow. `lines` has what it prints."""
        assert self._process.stdin is not None
        order = {"task": "local/demo", "first_wait_ms": 1, "most_wait_ms": 2, **order}
        self._process.stdin.write(json.dumps({"target": target, **order}).encode() + b"\n")
        await self._process.stdin.drain()

    async def lines(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what it prints, up to the line that says how the follow ended."""
        assert self._process.stdout is not None
        while True:
            text = await self._process.stdout.readline()
            assert text, "the driver ended"
            line: dict[str, Any] = json.loads(text)
            yield line
            if line["event"] in ("left", "error"):
                return

    async def follow(self, target: str, **order: Any) -> list[dict[str, Any]]:
        """Return all that it prints for one follow."""
        await self.start(target, **order)
        return [line async for line in self.lines()]


@asynccontextmanager
async def running(command: Sequence[str]) -> AsyncIterator[Driver]:
    """Run a driver."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_MOST_LINE_BYTES,
    )
    try:
        yield Driver(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
