"""The client processes of a run, as the run sees them. bench/worker.py is what they are."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from bench.processes import end, environment

_LINE_BYTES = 16 * 1024 * 1024
# Far above what a command takes, also on a busy machine: a command that waits for a server that
# has ended would never answer.
_COMMAND_TIMEOUT_SECONDS = 300

T = TypeVar("T")


class ClientError(Exception):
    """A client process ended, did not answer, or failed to carry out a command."""


class Worker:
    """A client process. It runs one command at a time; a second caller waits for its turn."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()
        self._given_up = ""
        """The command that nobody waits for any more. Its answer may still come."""

    @property
    def pid(self) -> int:
        return self._process.pid

    async def do(self, command: str, **arguments: Any) -> Any:
        """Run one command in the worker. Returns the result of the command.

        Raises ClientError. After a cancelled or timed-out command the worker takes no other one:
        the answer to the abandoned command would be taken for an answer to the next one.
        """
        async with self._turn:
            if self._given_up:
                raise ClientError(f"{command}: its client process was given up at {self._given_up}")
            self._given_up = command
            answer = await self._ask(command, arguments)
            self._given_up = ""
        if "failure" in answer:
            raise ClientError(f"{command} failed in a client process: {answer['failure']}")
        return answer["result"]

    async def _ask(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line: bytes | None
        try:
            async with asyncio.timeout(_COMMAND_TIMEOUT_SECONDS):
                self._process.stdin.write(json.dumps([command, arguments]).encode() + b"\n")
                await self._process.stdin.drain()
                line = await self._process.stdout.readline()
        except ConnectionError:
            line = b""
        except TimeoutError:
            line = None
        if line is None:
            limit = f"{_COMMAND_TIMEOUT_SECONDS} s"
            raise ClientError(f"a client process did not answer {command} in {limit}")
        if not line:
            raise ClientError(f"a client process ended during {command}: {await self._how()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def _how(self) -> str:
        status = await self._process.wait()
        return f"exit status {status}" if status >= 0 else signal.Signals(-status).name


async def together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all at once. The first that fails cancels the others, and its error is raised.

    Nobody would wait for the others: a `gather` would leave them in the middle of an answer.
    """
    failed: Exception | None = None
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except* Exception as failures:
        failed = failures.exceptions[0]
    if failed is not None:
        # Not in the `except`: its context is then the error that a clean-up follows, if any.
        raise failed
    return [task.result() for task in tasks]


@asynccontextmanager
async def workers(count: int) -> AsyncIterator[list[Worker]]:
    """Run client processes."""
    processes: list[asyncio.subprocess.Process] = []
    try:
        for _ in range(count):
            processes.append(
                await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "bench.worker"),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    limit=_LINE_BYTES,
                    env=environment(),
                )
            )
        yield [Worker(process) for process in processes]
    finally:
        for process in processes:
            await end(process)
