"""Runs the installed `tasklogs` as a process, in a pipe or on a terminal."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.fixtures.conditions import DEADLINE_SECONDS

# Where PYTHONUNBUFFERED is set nothing is left to be flushed at the end.
CHANGES_ITS_WAYS = ("NO_COLOR", "FORCE_COLOR", "PYTHONUNBUFFERED")
TASKLOGS = Path(sys.executable).parent / "tasklogs"


@dataclass(frozen=True)
class Finished:
    code: int
    stdout: str
    stderr: str = ""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process' environment without what changes the behaviour of the command."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("TASKLOGS_") and name not in CHANGES_ITS_WAYS
    }
    return kept | {"TERM": "xterm-256color", "COLUMNS": "200"} | dict(extra or {})


@asynccontextmanager
async def started(
    *arguments: str, env: Mapping[str, str] | None = None, stdout: int = subprocess.PIPE
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start it with pipes for its output and no terminal; it ends with the block at the latest."""
    process = await asyncio.create_subprocess_exec(
        TASKLOGS,
        *arguments,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def finish(process: asyncio.subprocess.Process) -> Finished:
    """Read what it writes until it ends."""
    stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return Finished(process.returncode, (stdout or b"").decode(), stderr.decode())


async def run(*arguments: str, env: Mapping[str, str] | None = None) -> Finished:
    """Run it to its end with pipes for its output and no terminal."""
    async with started(*arguments, env=env) as process:
        return await finish(process)


async def run_on_terminal(
    *arguments: str, typed: str = "", env: Mapping[str, str] | None = None
) -> Finished:
    """Run it on a terminal; `stdout` is everything that was shown on it."""
    ours, theirs = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            TASKLOGS,
            *arguments,
            env=environment(env),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        os.write(ours, typed.encode())
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                screen, code = await asyncio.gather(
                    asyncio.to_thread(_read_to_end, ours), process.wait()
                )
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    finally:
        os.close(ours)
    return Finished(code, screen.decode().replace("\r\n", "\n"))


def _read_to_end(terminal: int) -> bytes:
    screen = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            # Linux returns EIO when the last process has closed the terminal.
            return screen
        if not piece:
            return screen
        screen += piece
