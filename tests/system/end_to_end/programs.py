"""The programs of a deployment as processes that a test can kill and start again."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.cli.command import TASKLOGS, environment
from tests.support.fixtures.conditions import DEADLINE_SECONDS

_ROOT = Path(__file__).parents[3]
_SUPERVISE_SECONDS = 0.1


class Program:
    """A command that can run as a process many times. Its output goes to `said`, a file."""

    def __init__(self, said: Path, *command: str, **variables: str) -> None:
        self._said = said
        self._command = command
        self._variables = variables
        self.restarts = 0
        """How often the supervisor started it again."""
        # The supervisor and the test must not both start it.
        self._changing = asyncio.Lock()
        self._is_wanted = False
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        return self._running.pid

    async def start(self) -> None:
        async with self._changing:
            self._is_wanted = True
            await self._start()

    async def _start(self) -> None:
        with self._said.open("ab") as said:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                cwd=_ROOT,
                env=environment(self._variables) | {"PYTHONUNBUFFERED": "1"},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    async def kill(self) -> None:
        """Send SIGKILL, and wait until the process is gone."""
        async with self._changing:
            self._is_wanted = False
            if self.is_running:
                self._running.kill()
            await self._running.wait()

    async def end(self) -> int:
        """Send SIGTERM. Return the exit code."""
        self._running.terminate()
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self._running.wait()

    def signal(self, number: signal.Signals) -> None:
        self._running.send_signal(number)

    @asynccontextmanager
    async def supervised(self) -> AsyncIterator[None]:
        """Start it again whenever it ends by itself, as a service supervisor does."""

        async def supervise() -> None:
            while True:
                await self._running.wait()
                async with self._changing:
                    if self._is_wanted and not self.is_running:
                        self.restarts += 1
                        await self._start()
                await asyncio.sleep(_SUPERVISE_SECONDS)

        supervising = asyncio.create_task(supervise(), name="a supervisor")
        try:
            yield
        finally:
            supervising.cancel()
            await asyncio.wait({supervising})

    @property
    def said(self) -> str:
        return self._said.read_text(errors="replace") if self._said.exists() else ""

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None, f"{self._command} was never started"
        return self._process


@asynccontextmanager
async def program(said: Path, *command: str, **variables: str) -> AsyncIterator[Program]:
    """Run a command. It ends with the block at the latest."""
    running = Program(said, *command, **variables)
    try:
        await running.start()
        yield running
    finally:
        if running.is_running:
            await running.kill()


def serve_command(port: int, dsn: str) -> tuple[str, ...]:
    return (str(TASKLOGS), "serve", f"--listen=127.0.0.1:{port}", f"--database-url={dsn}")


def agent_command(server: str, task_app: str) -> tuple[str, ...]:
    return (str(TASKLOGS), "agent", f"--server={server}", f"--agentapi-url={task_app}")


def task_app_command(port: int, state_file: Path) -> tuple[str, ...]:
    return (
        *(sys.executable, "-m", "tests.support.fakes.task_app"),
        *(f"--port={port}", f"--state-file={state_file}"),
    )
