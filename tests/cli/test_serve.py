"""`tasklogs serve` as a process, on an embedded Postgres of its own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tasklogs.cli.serve import _to_connect_to
from tasklogs.extras import how_to_install
from tests.cli.command import TASKLOGS, Finished, environment, finish, run, started
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.ports import lasting_port

WITHOUT_THE_EXTRA = """
import sys
sys.modules["tasklogs_server"] = None
from tasklogs.cli.main import main
main()
"""


@pytest.fixture
async def serving(data_dir: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A server and its address."""
    async with started(
        *("serve", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir)),
        env={"PATH": os.defpath},
    ) as process:
        yield process, await address_of(process)


async def address_of(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    said = b""
    while line := await process.stderr.readline():
        said += line
        if match := re.search(rb"serving on (\S+);", line):
            return match[1].decode()
    raise AssertionError(f"it ended instead of serving:\n{said.decode()}")


async def test_it_says_what_to_type_next(
    serving: tuple[asyncio.subprocess.Process, str],
) -> None:
    process, address = serving

    created = await run("task", "create", "demo", "--server", address)
    process.send_signal(signal.SIGTERM)
    finished = await finish(process)

    assert created.code == 0, created
    # The .venv is not on this server's PATH, as after `make run`.
    beside = TASKLOGS.parent
    assert f"  {beside}/tasklogs task create demo --token-file demo.token" in finished.stderr
    assert f"  {beside}/tasklogs logs local/demo --server {address}\n" in finished.stderr
    assert f"  {beside}/grpcurl -plaintext {address} list\n" in finished.stderr


@pytest.mark.parametrize(
    ("bound", "typed"),
    [("0.0.0.0:50051", "HOST:50051"), ("[::]:1", "HOST:1"), ("10.1.2.3:1", "10.1.2.3:1")],
)
def test_the_hints_never_name_an_unspecified_address(bound: str, typed: str) -> None:
    assert _to_connect_to(bound) == typed


async def test_with_json_logs_there_are_no_hints(data_dir: Path) -> None:
    async with started(
        *("serve", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir)),
        *("--log-format", "json"),
        env={"PATH": os.defpath},
    ) as process:
        await address_of(process)
        process.send_signal(signal.SIGTERM)
        finished = await finish(process)

    assert "task create" not in finished.stderr


async def test_the_log_tells_programs_what_started_and_that_it_stopped(database: str) -> None:
    url = database.replace("postgres@", "postgres:secret@")
    async with started(
        *("serve", "--listen", "127.0.0.1:0", "--log-format", "json"),
        env={
            "TASKLOGS_DATABASE_URL": url,
            "TASKLOGS_HEALTH_LISTEN": "0",
            "TASKLOGS_METRICS_LISTEN": "0",
            "TASKLOGS_AGENTS": "7",
        },
    ) as process:
        address = await address_of(process)
        process.send_signal(signal.SIGTERM)
        finished = await finish(process)

    lines = [json.loads(line) for line in finished.stderr.splitlines() if line.startswith("{")]
    assert [line["event"] for line in lines] == [
        "server.started",
        "server.draining",
        "server.stopped",
    ]
    told = lines[0]
    assert told["address"] == address
    for port in (told["health_address"], told["metrics_address"]):
        assert re.fullmatch(r"127\.0\.0\.1:[1-9]\d*", port)
    assert told["version"] == version("tasklogs")
    assert (told["auth"], told["tls"], told["database"]) == ("none", False, "external")
    assert told["agents"] == 7
    assert "secret" not in finished.stderr


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_ends_it_with_0(
    serving: tuple[asyncio.subprocess.Process, str], ending: signal.Signals
) -> None:
    process, _ = serving

    process.send_signal(ending)

    assert (await finish(process)).code == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_log_that_cannot_be_written_does_not_end_it(database: str, workers: int) -> None:
    address = f"127.0.0.1:{lasting_port()}"
    full = os.open("/dev/full", os.O_WRONLY)
    process = await asyncio.create_subprocess_exec(
        *(TASKLOGS, "serve", "--listen", address, "--workers", str(workers)),
        env=environment({"TASKLOGS_DATABASE_URL": database, "TASKLOGS_LOG_CALLS": "all"}),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=full,
    )
    os.close(full)
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            async with asyncio.timeout(DEADLINE_SECONDS):
                await health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)
        created = await run("task", "create", "demo", "--server", address)
        assert created.code == 0, created
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_log_goes_to_stderr_and_stdout_stays_empty(
    serving: tuple[asyncio.subprocess.Process, str],
) -> None:
    process, _ = serving

    process.send_signal(signal.SIGTERM)

    assert (await finish(process)).stdout == ""


async def test_an_address_in_use_is_reported_in_one_line(
    serving: tuple[asyncio.subprocess.Process, str], migrated_data_dir: Path, tmp_path: Path
) -> None:
    _, address = serving
    other = shutil.copytree(migrated_data_dir, tmp_path / "other")

    second = await run("serve", "--listen", address, "--data-dir", str(other))

    assert second.code == 1
    assert address in second.stderr.splitlines()[-1]
    assert "Traceback" not in second.stderr


async def test_a_data_directory_in_use_is_reported_in_one_line(
    serving: tuple[asyncio.subprocess.Process, str], data_dir: Path
) -> None:
    second = await run("serve", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir))

    assert second.code == 1
    assert str(data_dir) in second.stderr.splitlines()[-1]
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize("address", ["0.0.0.0:50051", "[::]:50051", "192.0.2.1:50051"])
async def test_any_address_but_loopback_is_refused_with_what_is_missing(
    address: str, tmp_path: Path
) -> None:
    finished = await run("serve", "--listen", address, "--data-dir", str(tmp_path / "data"))

    assert finished.code == 1
    assert "TLS" in finished.stderr
    assert "unexpected" not in finished.stderr
    assert "authentication" in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()


async def test_a_database_that_does_not_answer_is_reported_in_one_line() -> None:
    finished = await run(
        *("serve", "--listen", "127.0.0.1:0"),
        *("--database-url", "postgresql://someone:secret@127.0.0.1:1/tasklogs"),
    )

    assert finished.code == 1
    assert finished.stderr.splitlines()[-1].startswith("tasklogs: ")
    assert "unexpected" not in finished.stderr
    assert "secret" not in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    ("url", "is_warned_of"),
    [
        ("postgresql://someone:secret@127.0.0.1:1/tasklogs", True),
        ("postgresql://127.0.0.1:1/tasklogs?user=someone&password=secret", True),
        ("postgresql://someone@127.0.0.1:1/tasklogs", False),
    ],
)
async def test_a_password_that_shows_in_ps_is_warned_of(url: str, is_warned_of: bool) -> None:
    asked = await run("serve", "--listen", "127.0.0.1:0", "--database-url", url)
    assert ("`ps`" in asked.stderr) is is_warned_of
    assert "secret" not in asked.stderr
    hidden = await run("serve", "--listen", "127.0.0.1:0", env={"TASKLOGS_DATABASE_URL": url})
    assert "`ps`" not in hidden.stderr


async def test_an_invalid_setting_is_reported_with_its_variable() -> None:
    finished = await run("serve", "--listen", "127.0.0.1:0", env={"TASKLOGS_PAGE_BYTES": "many"})

    assert finished.code == 2
    assert "TASKLOGS_PAGE_BYTES" in finished.stderr
    assert "Traceback" not in finished.stderr


async def test_a_list_of_admins_that_splits_a_subject_is_refused() -> None:
    env = {"TASKLOGS_ADMIN_SUBJECTS": "CN=a,O=x"}
    finished = await run("serve", "--listen", "127.0.0.1:0", env=env)

    assert finished.code == 2
    assert "TASKLOGS_ADMIN_SUBJECTS" in finished.stderr
    assert "JSON list" in finished.stderr


async def test_without_the_server_extra_it_says_how_to_install_it() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        WITHOUT_THE_EXTRA,
        "serve",
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )

    finished = await finish(process)

    assert finished == Finished(
        1,
        "",
        "tasklogs: the server is not installed here (no module tasklogs_server);"
        f" {how_to_install('server')}\n",
    )


async def test_help_shows_the_settings_that_are_no_options() -> None:
    finished = await run("serve", "--help")

    text = " ".join(finished.stdout.split())
    assert re.search(r"TASKLOGS_AGENT_WAIT [^\[]*\[default: 3 s\]", text)
    assert re.search(r"TASKLOGS_MIN_RETENTION [^\[]*\[default: 604800 s \(7 days\)\]", text)
    assert re.search(r"TASKLOGS_LOOP [^\[]* One of uvloop, asyncio\. \[default: uvloop\]", text)
    assert "TASKLOGS_LISTEN  " not in finished.stdout


async def test_a_duration_is_accepted_as_help_shows_it(tmp_path: Path) -> None:
    finished = await run(
        *("serve", "--listen", "192.0.2.1:1", "--data-dir", str(tmp_path / "data")),
        env={"TASKLOGS_AGENT_WAIT": "PT4S"},
    )

    assert "TLS" in finished.stderr


async def test_the_data_directory_follows_the_xdg_specification(tmp_path: Path) -> None:
    async with started(
        "serve",
        "--listen",
        "127.0.0.1:0",
        env={"XDG_DATA_HOME": str(tmp_path), "HOME": os.devnull},
    ) as process:
        await address_of(process)
        process.send_signal(signal.SIGTERM)
        await finish(process)

    assert (tmp_path / "tasklogs").is_dir()
