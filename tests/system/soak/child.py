"""The child processes of a run, as the harness uses them."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.system.soak.journal import Journal

_ROOT = Path(__file__).parents[3]
_END_SECONDS = 30.0
_START_SECONDS = 60.0
_AGAIN_SECONDS = 0.5
"""From the end of a process to its restart by the supervisor."""


class Spawner:
    """Starts child processes. The end of the block ends all of them."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        """Records starts, signals and ends."""
        self._numbers = itertools.count(1)
        self._starting: dict[int, asyncio.Future[int]] = {}
        self._children: dict[int, Child] = {}
        self._again: set[asyncio.Task[None]] = set()
        self._process: asyncio.subprocess.Process
        self._reading: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.system.soak.spawner"),
            cwd=_ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._reading = asyncio.create_task(self._read_reports(), name="the spawner's reports")
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for child in self._children.values():
            child.is_wanted = False
        for task in self._again:
            task.cancel()
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._reading

    def order(self, **order: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")

    async def spawn(self, child: Child, order: Mapping[str, object]) -> tuple[int, int]:
        """Start a process. Returns its number and pid."""
        number = next(self._numbers)
        started = self._starting[number] = asyncio.get_running_loop().create_future()
        self._children[number] = child
        self.order(start=number, **order)
        async with asyncio.timeout(_START_SECONDS):
            return number, await started

    def later(self, child: Child) -> None:
        """Start a child again after a pause."""
        again = asyncio.create_task(child.start_again(), name=f"{child.name} starts again")
        self._again.add(again)
        again.add_done_callback(self._again.discard)

    async def _read_reports(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            report = json.loads(line)
            if "started" in report:
                started = self._starting.pop(report["started"])
                if not started.done():  # the caller may have been cancelled
                    started.set_result(report["pid"])
            else:
                self._children.pop(report["ended"]).has_ended(report["code"])


class Child:
    """A part of the system that runs as a child process: a tests.system.soak.fault.Process.

    If it ends by itself, it is started again, as a service supervisor does. `command` returns the
    arguments of each start, which is numbered from 1. `entry` is a module with a `main(argv)`. None
    means that argv is a command.
    """

    def __init__(
        self,
        spawner: Spawner,
        name: str,
        said: Path,
        command: Callable[[int], Sequence[str]],
        *,
        entry: str | None = None,
        variables: Mapping[str, str] = {},
    ) -> None:
        self._spawner = spawner
        self.name = name
        self.said = said
        self._command = command
        self._entry = entry
        self._environment = environment(variables)
        self._changing = asyncio.Lock()
        self._number = 0
        self._pid = 0
        self._ended = asyncio.Event()
        self._ended.set()
        self.is_wanted = False
        self.starts = 0
        self.gave_up = 0
        """How often the process ended by itself."""
        self.code: int | None = None

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def is_running(self) -> bool:
        return not self._ended.is_set()

    async def start(self) -> None:
        async with self._changing:
            self.is_wanted = True
            if self.is_running:
                return
            self.starts += 1
            self._ended.clear()
            argv = list(self._command(self.starts))
            self._number, self._pid = await self._spawner.spawn(
                self,
                {
                    "entry": self._entry,
                    "argv": argv,
                    "env": self._environment,
                    "said": str(self.said),
                },
            )
            self._spawner.journal.note(name=self.name, what="started", pid=self._pid)

    async def start_again(self) -> None:
        """Start it, unless it was killed or stopped on purpose meanwhile."""
        await asyncio.sleep(_AGAIN_SECONDS)
        if self.is_wanted:
            await self.start()

    async def kill(self) -> None:
        self.is_wanted = False
        self.signal(signal.SIGKILL)
        async with asyncio.timeout(_END_SECONDS):
            await self._ended.wait()

    async def end(self) -> int:
        self.is_wanted = False
        self.signal(signal.SIGTERM)
        async with asyncio.timeout(_END_SECONDS):
            await self._ended.wait()
        assert self.code is not None, f"{self.name} was never started"
        return self.code

    def signal(self, number: signal.Signals) -> None:
        if self.is_running:
            self._spawner.journal.note(name=self.name, what=number.name, pid=self._pid)
            self._spawner.order(signal=self._number, number=int(number))

    def has_ended(self, code: int) -> None:
        self.code = code
        self._spawner.journal.note(name=self.name, what="ended", pid=self._pid, code=code)
        self._ended.set()
        if self.is_wanted:
            self.gave_up += 1
            self._spawner.later(self)


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without settings of a server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TASKLOGS_")}
    return kept | {"PYTHONUNBUFFERED": "1", "GRPC_VERBOSITY": "NONE"} | dict(variables)
