"""A killed supervisor cannot stop its Postgres. The kernel's death signal must do it."""

import asyncio
import os
import signal
import threading
from pathlib import Path

import asyncpg
import pytest

from tasklogs_server.postgres import EmbeddedPostgres
from tasklogs_server.postgres.candidates import dedicated_user, stand_in_account
from tasklogs_server.postgres.identity import UserNamespace
from tests.postgres.supervisor_process import (
    SupervisorProcess,
    eventually,
    initdb_has_begun,
    postgres_processes,
    until,
)
from tests.postgres.test_supervisor import query


async def test_no_postgres_is_left_and_the_next_start_finds_the_data(data_dir: Path) -> None:
    with SupervisorProcess(str(data_dir)) as supervisor:
        await query(supervisor.dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
        supervisor.kill()
    until(lambda: not postgres_processes(data_dir / "cluster"), "all of postgres has ended")
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await query(postgres.dsn(), "SELECT answer FROM kept") == 42


async def test_a_start_right_after_the_kill_waits_for_the_orphan(data_dir: Path) -> None:
    with SupervisorProcess(str(data_dir)) as supervisor:
        await query(supervisor.dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
        supervisor.kill()
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await query(postgres.dsn(), "SELECT answer FROM kept") == 42


async def test_a_start_waits_for_an_orphan_that_ends_slowly(data_dir: Path) -> None:
    lines: list[str] = []
    with SupervisorProcess(str(data_dir)) as supervisor:
        orphan = supervisor.postgres_pid
        os.kill(orphan, signal.SIGSTOP)
        supervisor.kill()

    async def is_reported() -> bool:
        return bool(lines)

    postgres = EmbeddedPostgres(data_dir, on_progress=lines.append)
    starting = asyncio.create_task(postgres.start())
    try:
        await eventually(is_reported)
        assert lines == ["waiting for the Postgres of an earlier start to end"]
        assert not starting.done()
    finally:
        os.kill(orphan, signal.SIGCONT)
    await starting
    assert postgres.pid != orphan
    await postgres.stop()


async def test_postgres_ends_with_a_supervisor_that_is_an_ordinary_user(data_dir: Path) -> None:
    """The supervisor's uid is not 0 in its namespace, so it starts Postgres directly."""
    user = UserNamespace(*stand_in_account())
    with SupervisorProcess(str(data_dir), run_as=user) as supervisor:
        assert await query(supervisor.dsn, "SELECT 1") == 1
        supervisor.kill()
    until(lambda: not postgres_processes(data_dir / "cluster"), "all of postgres has ended")


async def test_postgres_ends_with_its_supervisor_when_it_runs_as_another_user(
    as_root: None, public_tmp_path: Path, state_root: Path
) -> None:
    data_dir = public_tmp_path / "data"
    cluster = dedicated_user(data_dir, state_root).home(data_dir) / "cluster"
    with SupervisorProcess(str(data_dir), "user", str(state_root)) as supervisor:
        await query(supervisor.dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
        assert postgres_processes(cluster)
        supervisor.kill()
    until(lambda: not postgres_processes(cluster), "all of postgres has ended")
    with SupervisorProcess(str(data_dir), "user", str(state_root)) as supervisor:
        assert await query(supervisor.dsn, "SELECT answer FROM kept") == 42


async def test_a_kill_during_initdb_does_not_stop_the_next_start(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"

    def kill_while_it_initialises() -> None:
        until(lambda: initdb_has_begun(data_dir), "initdb works")
        os.kill(int((data_dir / "lock").read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill_while_it_initialises)
    killer.start()
    with SupervisorProcess(str(data_dir)) as supervisor:
        killer.join()
        assert supervisor.answer == {}
    assert not (data_dir / "cluster").exists()
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await query(postgres.dsn(), "SELECT 1") == 1
    assert not list(data_dir.glob("initialising-*"))


async def test_a_busy_client_does_not_keep_an_orphan_alive(data_dir: Path) -> None:
    with SupervisorProcess(str(data_dir)) as supervisor:
        dsn = supervisor.dsn
        busy = asyncio.create_task(query(dsn, "SELECT pg_sleep(600)"))
        sleepers = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"

        async def one_sleeps() -> bool:
            return await query(dsn, sleepers) == 1

        await eventually(one_sleeps)
        supervisor.kill()
    until(lambda: not postgres_processes(data_dir / "cluster"), "all of postgres has ended")
    with pytest.raises((asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError)):
        await busy
