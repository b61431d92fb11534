"""The CPU time that processes have used, from /proc."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import psutil


@dataclass(frozen=True)
class CpuSeconds:
    """CPU seconds of all processes of a run, of one server, and of Postgres."""

    everything: float = 0.0
    server: float = 0.0
    postgres: float = 0.0

    def __sub__(self, before: CpuSeconds) -> CpuSeconds:
        return CpuSeconds(
            self.everything - before.everything,
            self.server - before.server,
            self.postgres - before.postgres,
        )

    def __add__(self, other: CpuSeconds) -> CpuSeconds:
        return CpuSeconds(
            self.everything + other.everything,
            self.server + other.server,
            self.postgres + other.postgres,
        )

    def per(self, work: float) -> CpuCost:
        """Return the cost of one of `work` calls, entries, messages or changes."""
        return CpuCost(1e6 * self.server / work, 1e6 * self.postgres / work)


NOTHING = CpuSeconds()


@dataclass(frozen=True)
class CpuCost:
    """Microseconds of CPU per call, or whatever else was counted."""

    server_us: float
    postgres_us: float

    def of(self, count: float) -> CpuCost:
        """Return the cost of this many."""
        return CpuCost(count * self.server_us, count * self.postgres_us)


class Measured(Protocol):
    """A server process."""

    @property
    def pid(self) -> int:
        """Of the process that serves."""


CpuMeter = Callable[["Measured | None"], CpuSeconds]
"""Returns what was used so far. Its argument is the server whose time counts as `server`."""


def no_meter(server: Measured | None) -> CpuSeconds:
    """Measure nothing."""
    return NOTHING


def used(server: Measured | None, postgres_pid: int) -> CpuSeconds:
    """Return what all children of this process, a server and a Postgres have used so far."""
    return CpuSeconds(
        everything=_of_tree(psutil.Process().pid, with_root=False),
        server=_of_tree(server.pid) if server is not None else 0.0,
        postgres=_of_tree(postgres_pid),
    )


def _of_tree(pid: int, *, with_root: bool = True) -> float:
    root = psutil.Process(pid)
    processes = root.children(recursive=True)
    if with_root:
        processes.append(root)
    seconds = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            # A backend that has ended counts among the children that its parent waited for.
            seconds += times.user + times.system + times.children_user + times.children_system
    return seconds
