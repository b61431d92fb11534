"""Where an agent's log goes: a pipe whose reader leaves or stands still, and a disk that is full.

A disk of its own would need root. A limit of the size of files has the same effect: writes fail,
and the kernel sends SIGXFSZ as well.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import psutil

_PIPE_BYTES = 4096


class Trouble(NamedTuple):
    """What happens to an agent, and how it ends."""

    name: str
    begin: Callable[[], None]
    end: Callable[[], None]


class Log(Protocol):
    """The stderr of an agent."""

    def open(self) -> int:
        """Return a descriptor for the agent, which the caller closes."""

    def troubles(self, agent: psutil.Process) -> Sequence[Trouble]:
        """Return what can happen to this log."""

    def text(self) -> str:
        """Return what has arrived."""

    def close(self) -> None:
        """Release it, after the agent has ended."""


class PipeLog:
    """A named pipe, as a log collector reads it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        os.mkfifo(path)
        self._reading: int | None = None
        self._arrived: list[bytes] = []

    def open(self) -> int:
        self._read()
        writing = os.open(self._path, os.O_WRONLY)
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        return writing

    def troubles(self, agent: psutil.Process) -> Sequence[Trouble]:
        return (
            Trouble("the reader of the log is away", self.close, self._read),
            Trouble("the reader of the log stands still", self._pause, self._go_on),
        )

    def text(self) -> str:
        return b"".join(self._arrived).decode()

    def close(self) -> None:
        if self._reading is not None:
            self._pause()
            self._take()
            os.close(self._reading)
            self._reading = None

    def _read(self) -> None:
        self._reading = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        self._go_on()

    def _go_on(self) -> None:
        assert self._reading is not None
        asyncio.get_running_loop().add_reader(self._reading, self._take)

    def _pause(self) -> None:
        assert self._reading is not None
        asyncio.get_running_loop().remove_reader(self._reading)

    def _take(self) -> None:
        assert self._reading is not None
        try:
            while part := os.read(self._reading, 65_536):
                self._arrived.append(part)
        except BlockingIOError:
            pass


class FileLog:
    """A file on a disk that fills up."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def troubles(self, agent: psutil.Process) -> Sequence[Trouble]:
        def limit(size_bytes: int) -> None:
            agent.rlimit(psutil.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))

        return (
            Trouble(
                "the disk of the log is full",
                lambda: limit(self._path.stat().st_size + 1),
                lambda: limit(resource.RLIM_INFINITY),
            ),
        )

    def text(self) -> str:
        return self._path.read_text()

    def close(self) -> None:
        pass
