"""A crash leaves postmaster.pid behind. Its pid may belong to an unrelated process by then."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasklogs_server.postgres import EmbeddedPostgres, EmbeddedPostgresError
from tests.postgres.test_supervisor import query


@pytest.fixture
def unrelated_process() -> Iterator[subprocess.Popen[bytes]]:
    """A live process of the same user that is not related to Postgres."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


async def crashed(data_dir: Path) -> list[str]:
    """Kill a Postgres, and return the lines of the pid file that it left."""
    async with EmbeddedPostgres(data_dir) as postgres:
        os.kill(postgres.pid, signal.SIGKILL)
        await postgres.wait()
    return (data_dir / "cluster" / "postmaster.pid").read_text().splitlines()


async def test_the_pid_of_an_unrelated_process_does_not_stop_the_start_or_end_the_process(
    data_dir: Path, unrelated_process: subprocess.Popen[bytes]
) -> None:
    lines = await crashed(data_dir)
    lines[0] = str(unrelated_process.pid)
    (data_dir / "cluster" / "postmaster.pid").write_text("\n".join(lines) + "\n")
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await query(postgres.dsn(), "SELECT 1") == 1
        assert postgres.pid != unrelated_process.pid
    assert unrelated_process.poll() is None


async def test_a_socket_lock_file_with_an_unrelated_pid_does_not_stop_the_start(
    data_dir: Path, unrelated_process: subprocess.Popen[bytes]
) -> None:
    sockets = data_dir / "socket"
    sockets.mkdir(mode=0o700)
    (sockets / ".s.PGSQL.5432.lock").write_text(
        f"{unrelated_process.pid}\n{data_dir}\n0\n5432\n{sockets}\n"
    )
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await query(postgres.dsn(), "SELECT 1") == 1
    assert unrelated_process.poll() is None


@pytest.mark.parametrize("content", ["", "garbage\n", "-1\n", "0\n", "999999999\n"])
async def test_an_incomplete_pid_file_does_not_stop_the_start(data_dir: Path, content: str) -> None:
    (data_dir / "cluster" / "postmaster.pid").write_text(content)
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await query(postgres.dsn(), "SELECT 1") == 1


async def test_a_start_is_refused_while_a_server_answers_on_the_old_socket(
    data_dir: Path, tmp_path: Path
) -> None:
    """Such as a server in another container on the same volume: /proc does not show it."""
    lines = await crashed(data_dir)
    lines[4] = str(tmp_path)
    (data_dir / "cluster" / "postmaster.pid").write_text("\n".join(lines) + "\n")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / ".s.PGSQL.5432"))
        server.listen()
        with pytest.raises(EmbeddedPostgresError, match="started elsewhere"):
            await EmbeddedPostgres(data_dir).start()
    assert (data_dir / "cluster" / "postmaster.pid").exists()
