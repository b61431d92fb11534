"""Launches the programs of Postgres, and finds those that serve a directory."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from pathlib import Path

from tasklogs_server.postgres.identity import Identity

LAUNCHER = Path(__file__).with_name("launch.py")
PROGRAMS = (b"postgres\n", b"initdb\n")
LOADER_VARIABLES = ("PATH", "LD_LIBRARY_PATH")


async def launch(
    identity: Identity,
    directory: Path,
    command: list[str],
    output: int,
    death_signal: signal.Signals,
) -> Process:
    """Start `command` as a direct child that gets `death_signal` when the calling thread ends.

    `directory` is its working directory, `output` a descriptor (or PIPE) for its stdout and stderr.
    The kernel watches the thread that forked, not the process. So call this on a thread that lives
    as long as the server, such as that of the event loop.
    """
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-S",
        str(LAUNCHER),
        str(os.getpid()),
        str(int(death_signal)),
        identity.launch_option,
        str(directory),
        *command,
        stdin=DEVNULL,
        stdout=output,
        stderr=output,
        # No other variables: PGDATA and the like would interfere, and tokens would leak.
        env={name: os.environ[name] for name in LOADER_VARIABLES if name in os.environ}
        | {"LC_ALL": "C", "TZ": "UTC"},
        # A Ctrl-C at the terminal is for the supervisor alone, which stops Postgres last.
        start_new_session=True,
    )


def serving_processes(cluster: Path) -> list[int]:
    """Return the pids of all postgres and initdb processes that work in `cluster`.

    Orphans are included. All are launched in that directory and never leave it, as /proc shows. So
    this never names an unrelated process, as a pid file may.
    """
    try:
        wanted = cluster.stat()
    except FileNotFoundError:
        return []
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                ours = (entry / "comm").read_bytes() in PROGRAMS
                if ours and os.path.samestat((entry / "cwd").stat(), wanted):
                    pids.append(int(entry.name))
            except OSError:  # it has ended, or belongs to another user
                continue
    return pids
