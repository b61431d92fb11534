"""The options of the command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from tests.system.soak.meeting import BUSES
from tests.system.soak.plants import PLANTS


@dataclass(frozen=True)
class Options:
    """One run. The same seed plans the same faults if tasks and kinds are the same."""

    seconds: float = 60.0
    tasks: int = 6
    servers: int = 1
    workers: int = 1
    """How many workers the last server has."""
    bus: str = "postgres"
    """Over what several servers meet: tests.system.soak.meeting."""
    plants: tuple[str, ...] = ()
    """Mistakes in every server: tests.system.soak.plants."""
    seed: int = 1
    least_faults: int = 0
    """If the time is over before so many faults were injected, the run goes on: on a busy machine
    each takes longer."""
    only: tuple[str, ...] = ()
    """Names of kinds of faults, or prefixes of names. Empty means all kinds."""
    quiet_seconds: float = 3.0
    longest_seconds: float = 60.0
    """No fault is planned to last longer than this."""
    pause_seconds: float = 0.0
    """Between an answer and the next question. 0: suitable for this many tasks on two cores."""
    read_seconds: float = 0.0
    """Between two reads of a reader. 0: suitable for the number of tasks."""
    calm_seconds: float = 5.0
    """How long the load goes on after all has recovered from the last fault."""
    settle_seconds: float = 120.0
    """How long everything may take to agree after faults and questions have ended."""
    small_disk: bool = False
    """Postgres gets a disk in memory (768 MB) that a fault really fills."""
    real_agentapi: bool = False
    """The task apps are real AgentAPI processes: tests.system.soak.real_task_app."""
    judge: Path | None = None
    """Run nothing, and judge the files in this directory."""
    keep: Path | None = None
    """The directory for all files of the run, kept. None: kept only if the run failed."""

    @property
    def pause(self) -> float:
        return self.pause_seconds or max(1.0, self.tasks * 0.25)

    @property
    def read_pause(self) -> float:
        return self.read_seconds or max(0.3, self.tasks * 0.1)


def parse(arguments: list[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog="make soak ARGS=...",
        description="Run server, Postgres, agents and task apps under load and faults, and check"
        " that nothing acknowledged is lost, repeated, reordered or stale.",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, help="how long faults are injected")
    length.add_argument("--seconds", type=float, default=Options.seconds)
    parser.add_argument("--tasks", type=int, default=Options.tasks)
    parser.add_argument(
        "--servers",
        type=int,
        default=Options.servers,
        help="how many servers there are, behind a balancer, on one database",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=Options.workers,
        help="how many workers the last server has",
    )
    parser.add_argument(
        "--bus", choices=BUSES, default=Options.bus, help="over what several servers meet"
    )
    parser.add_argument(
        "--plant",
        action="append",
        default=[],
        choices=sorted(PLANTS),
        help="run servers with a mistake: the run must then be BAD",
    )
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="KIND",
        help="only faults whose names begin so; may be given several times; `none`: no faults",
    )
    parser.add_argument("--quiet-seconds", type=float, default=Options.quiet_seconds)
    parser.add_argument(
        "--longest-seconds",
        type=float,
        default=Options.longest_seconds,
        help="the longest planned fault",
    )
    parser.add_argument(
        "--pause-seconds",
        type=float,
        default=Options.pause_seconds,
        help="between an answer and the next question (0: by the number of tasks)",
    )
    parser.add_argument(
        "--read-seconds",
        type=float,
        default=Options.read_seconds,
        help="between two reads of a task (0: by the number of tasks)",
    )
    parser.add_argument("--settle-seconds", type=float, default=Options.settle_seconds)
    parser.add_argument(
        "--small-disk",
        action="store_true",
        help="as root: put Postgres on 768 MB of memory, which database-disk-full really fills",
    )
    parser.add_argument(
        "--real-agentapi",
        action="store_true",
        help="task apps are real AgentAPI processes (.tools/bin/agentapi or TASKLOGS_AGENTAPI), and"
        " faults that only the fake one does are left out",
    )
    parser.add_argument(
        "--judge", type=Path, metavar="DIR", help="run nothing: judge the files of an earlier run"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep all files of the run here")
    got = parser.parse_args(arguments)
    return Options(
        seconds=got.seconds if got.minutes is None else got.minutes * 60,
        tasks=got.tasks,
        servers=got.servers,
        workers=got.workers,
        bus=got.bus,
        plants=tuple(got.plant),
        seed=got.seed,
        only=tuple(got.only),
        quiet_seconds=got.quiet_seconds,
        longest_seconds=got.longest_seconds,
        pause_seconds=got.pause_seconds,
        read_seconds=got.read_seconds,
        settle_seconds=got.settle_seconds,
        small_disk=got.small_disk,
        real_agentapi=got.real_agentapi,
        judge=got.judge,
        keep=got.keep,
    )
