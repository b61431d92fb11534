"""Starts and kills a supervisor in its own process, and looks at what it leaves."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

import psutil

from tasklogs_server.postgres import processes
from tasklogs_server.postgres.identity import Identity
from tests.support.fixtures.conditions import DEADLINE_SECONDS

DEADLINE_S = DEADLINE_SECONDS
ROOT = Path(__file__).parents[2]


class SupervisorProcess:
    """`tests.postgres.supervise` as a child; `answer` is its line of JSON.

    `run_as`: the identity of the supervisor itself, by default this process's.
    """

    def __init__(self, *arguments: str, run_as: Identity | None = None) -> None:
        command = [sys.executable, "-m", "tests.postgres.supervise", *arguments]
        if run_as is not None:
            launcher = [sys.executable, "-I", "-S", str(processes.LAUNCHER)]
            command = [*launcher, str(os.getpid()), "9", run_as.launch_option, str(ROOT), *command]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.answer: dict[str, str] = json.loads(self._process.stdout.readline() or "{}")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def postgres_pid(self) -> int:
        return int(self.answer["pid"])

    @property
    def dsn(self) -> str:
        return self.answer["dsn"]

    def kill(self) -> None:
        self._process.kill()
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._close()

    def _close(self) -> None:
        """Close stdin, which tells the process to stop."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(DEADLINE_S)
        self._process.stdout.close()


def postgres_processes(cluster: Path) -> list[int]:
    """Pids of the live processes in `cluster`, found by psutil, not by the code under test."""
    found = []
    for process in psutil.process_iter():
        try:
            alive = process.status() != psutil.STATUS_ZOMBIE
            if alive and process.name() == "postgres" and Path(process.cwd()) == cluster.resolve():
                found.append(process.pid)
        except (psutil.Error, FileNotFoundError):
            continue
    return found


def initdb_has_begun(data_dir: Path) -> bool:
    return any(data_dir.glob("initialising-*/PG_VERSION"))


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.02)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait as `until` does, without blocking the event loop."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.02)
