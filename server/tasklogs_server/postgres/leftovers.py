"""What an earlier life left behind: orphans that are still ending, and a stale postmaster.pid."""

import asyncio
import socket
from pathlib import Path

from tasklogs_server.postgres.errors import EmbeddedPostgresError
from tasklogs_server.postgres.processes import serving_processes

PID_FILE = "postmaster.pid"


def read_pid_file(cluster: Path) -> list[str]:
    """Lines: pid, data directory, start, port, socket directory, address, shm key and id, state.

    Fewer while Postgres is starting; none when there is no file.
    """
    try:
        return (cluster / PID_FILE).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []


async def wait_for_orphans(cluster: Path, timeout_s: float) -> None:
    """Until nothing serves `cluster` any more. The caller holds the lock, so nothing new begins.

    After a supervisor's SIGKILL its Postgres gets the death signal and ends by itself; nobody
    signals it again from here. Raises EmbeddedPostgresError when it does not.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while pids := serving_processes(cluster):
        if loop.time() > deadline:
            raise EmbeddedPostgresError(
                f"Postgres process {min(pids)} of an earlier start still serves {cluster}; "
                "end it and start again"
            )
        await asyncio.sleep(0.02)


def remove_stale_pid_file(cluster: Path) -> None:
    """Removes a pid file that would make Postgres mistake a stranger for a running server.

    Postgres refuses to start while the pid in its file is alive, whoever that is today, or when a
    power cut left the file empty. Here no process serves the directory (`wait_for_orphans`) and the
    lock keeps it so. A server that /proc does not show (another container on the same volume) would
    answer on its socket or hold its shared memory.
    """
    lines = read_pid_file(cluster)
    if _answers(lines) or _shared_memory_in_use(lines):
        raise EmbeddedPostgresError(
            f"a Postgres that was started elsewhere serves {cluster}; stop it first"
        )
    if not lines or not _names_a_dead_process(lines[0]):
        (cluster / PID_FILE).unlink(missing_ok=True)


def _names_a_dead_process(pid: str) -> bool:
    # Negative in a single-user server's file.
    number = pid.strip().lstrip("-")
    return number.isdigit() and int(number) > 0 and not Path("/proc", number).exists()


def _answers(lines: list[str]) -> bool:
    if len(lines) < 5 or not lines[4]:
        return False
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(f"{lines[4]}/.s.PGSQL.{lines[3]}")
        except OSError:
            return False
    return True


def _shared_memory_in_use(lines: list[str]) -> bool:
    """Line 7 holds key and id of the segment to which all of a server's processes are attached."""
    if len(lines) < 7 or len(lines[6].split()) != 2:
        return False
    key, identifier = lines[6].split()
    try:
        segments = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    except FileNotFoundError:
        return False
    # Columns: key, shmid, perms, size, cpid, lpid, nattch, ...
    return any(
        fields[0] == key and fields[1] == identifier and int(fields[6]) > 0
        for fields in map(str.split, segments)
    )
