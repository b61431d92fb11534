"""What an earlier run left behind: orphans that are still ending, and a stale postmaster.pid."""

import asyncio
import socket
from pathlib import Path

from tasklogs_server.postgres.errors import EmbeddedPostgresError
from tasklogs_server.postgres.processes import serving_processes

PID_FILE = "postmaster.pid"


def read_pid_file(cluster: Path) -> list[str]:
    """Return the lines of the pid file.

    They are pid, data directory, start time, port, socket directory, address, shared memory key and
    id, state. There are fewer while Postgres starts, and none without a file.
    """
    try:
        return (cluster / PID_FILE).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []


async def wait_for_orphans(cluster: Path, timeout_s: float) -> None:
    """Wait until no process serves `cluster`. The caller holds the lock, so none is started.

    If a supervisor is killed, its Postgres gets the death signal and ends by itself. It gets no
    other signal from here. Raises EmbeddedPostgresError if it does not end in time.
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
    """Remove a pid file that keeps Postgres from starting although no server runs.

    Postgres refuses to start while a process has the pid in the file, even an unrelated one, or if
    a power cut left the file empty. The caller made sure that no process serves the directory
    (`wait_for_orphans`), and holds the lock.

    Raises EmbeddedPostgresError if a server runs that /proc does not show (in another container on
    the same volume): it answers on its socket, or is attached to its shared memory.
    """
    lines = read_pid_file(cluster)
    if _answers(lines) or _shared_memory_in_use(lines):
        raise EmbeddedPostgresError(
            f"a Postgres that was started elsewhere serves {cluster}; stop it first"
        )
    if not lines or not _names_a_dead_process(lines[0]):
        (cluster / PID_FILE).unlink(missing_ok=True)


def _names_a_dead_process(pid: str) -> bool:
    # The pid is negative in the file of a single-user server.
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
    """Whether a process is attached to the segment whose key and id are in line 7."""
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
