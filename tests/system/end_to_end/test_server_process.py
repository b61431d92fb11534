"""`tasklogs serve` as a process: how it starts, how it ends, and what it leaves behind."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tasklogs.v1 import task_logs_pb2 as logs_pb
from tests.cli.command import finish, run, started
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until
from tests.support.fixtures.postgres import PostgresServer
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.reports import TASK, get_task, make_active
from tests.support.fixtures.server import Server

DRAIN_SECONDS = 2
# In addition to the drain: the interpreter's exit, Postgres' shutdown, and a busy machine.
MARGIN_SECONDS = 10
SERVING = re.compile(rb"serving on (\S+);")


@dataclass(frozen=True)
class Serving:
    process: asyncio.subprocess.Process
    api: Server

    def descendants(self) -> list[psutil.Process]:
        """Return its Postgres and the children of that."""
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture
def data_dir(migrated_data_dir: Path, tmp_path: Path) -> Path:
    """A data directory as an earlier server left it. Running initdb would take a second."""
    return Path(shutil.copytree(migrated_data_dir, tmp_path / "data"))


@asynccontextmanager
async def serving(
    data_dir: Path, *options: str, drain_seconds: float = DRAIN_SECONDS
) -> AsyncIterator[Serving]:
    async with started(
        *("serve", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir), *options),
        env={"TASKLOGS_DRAIN_TIMEOUT": f"PT{drain_seconds}S"},
    ) as process:
        address = await _address_of(process)
        async with grpc.aio.insecure_channel(address) as channel:
            yield Serving(process, Server(address, "", channel))


async def test_stored_entries_survive_a_restart(data_dir: Path) -> None:
    async with serving(data_dir) as first:
        await _store_one_entry(first.api)
        first.process.send_signal(signal.SIGTERM)
        assert (await finish(first.process)).code == 0

    async with serving(data_dir) as second:
        assert await _stored(second.api) == ["kept"]


async def test_sigkill_leaves_no_postgres_and_loses_no_acknowledged_entry(
    data_dir: Path,
) -> None:
    async with serving(data_dir) as first:
        await _store_one_entry(first.api)
        left = first.descendants()
        assert any("postgres" in process.name() for process in left)
        first.process.kill()
        await first.process.wait()

        await until(lambda: _all_gone(left))

    async with serving(data_dir) as second:
        assert await _stored(second.api) == ["kept"]


async def test_sigterm_ends_it_in_time_with_any_client_connected(data_dir: Path) -> None:
    async with serving(data_dir) as server:
        token = (await server.api.create_task()).agent_token
        await make_active(server.api)
        watch: Any = health_pb2_grpc.HealthStub(server.api.channel)
        watching = watch.Watch(health_pb2.HealthCheckRequest())
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
        left = server.descendants()
        # This agent gets a Drain, stays connected, and answers no sync.
        async with ScriptedAgent.connect(server.api, token) as agent:
            reading = asyncio.create_task(refused(_read(server.api)))
            await agent.heard(lambda: bool(agent.syncs))

            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            await agent.heard(lambda: bool(agent.drains))
            assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            new = await refused(get_task(server.api))
            ended, refusal = await agent.ended(), await reading
            finished = await finish(server.process)

    assert finished.code == 0
    assert time.monotonic() - began < DRAIN_SECONDS + MARGIN_SECONDS
    assert "Traceback" not in finished.stderr
    assert (ended.code, ended.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    for one in (new, refusal):
        assert (one.code, one.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert one.retry_seconds is not None
    await until(lambda: _all_gone(left))


async def test_a_read_in_progress_is_answered_before_the_server_ends(data_dir: Path) -> None:
    async with serving(data_dir) as server:
        token = (await server.api.create_task()).agent_token
        await make_active(server.api)
        async with ScriptedAgent.connect(server.api, token) as agent:
            reading = asyncio.create_task(_read(server.api))
            await agent.heard(lambda: bool(agent.syncs))
            server.process.send_signal(signal.SIGTERM)
            await agent.heard(lambda: bool(agent.drains))

            await agent.append(open_epoch=True, entries=[log_entry(0, "last words")])
            await agent.sync_done(agent.syncs[0].id)
            await agent.acked()
            await agent.goodbye()

            assert [one.content for one in (await reading).logs] == ["last words"]
        assert (await finish(server.process)).code == 0


async def test_a_second_signal_ends_it_at_once_and_its_postgres_too(data_dir: Path) -> None:
    drain_seconds = 2 * DEADLINE_SECONDS
    async with serving(data_dir, drain_seconds=drain_seconds) as server:
        await _store_one_entry(server.api)
        token = (await server.api.create_task("other")).agent_token
        left = server.descendants()
        async with ScriptedAgent.connect(server.api, token) as agent:
            server.process.send_signal(signal.SIGTERM)
            await agent.heard(lambda: bool(agent.drains))
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            finished = await finish(server.process)
            took = time.monotonic() - began
            assert (await agent.ended()).code is grpc.StatusCode.UNAVAILABLE

    assert finished.code == 1
    assert took < drain_seconds
    assert "server.aborted" in finished.stderr
    assert "Traceback" not in finished.stderr
    await until(lambda: _all_gone(left))
    async with serving(data_dir) as again:
        assert await _stored(again.api) == ["kept"]


async def test_a_second_signal_ends_it_while_it_waits_for_a_postgres_that_hangs(
    data_dir: Path,
) -> None:
    async with serving(data_dir) as server:
        left = server.descendants()
        for process in left:
            process.suspend()
        try:
            server.process.send_signal(signal.SIGTERM)
            # The server has told Postgres to stop, which takes up to 40 s.
            await until(lambda: _refuses(server.api))
            server.process.send_signal(signal.SIGTERM)
            assert (await finish(server.process)).code == 1
        finally:
            for process in left:
                process.resume()
        await until(lambda: _all_gone(left))


async def test_a_signal_ends_it_while_it_waits_for_a_silent_database() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        silent.setblocking(False)
        url = f"postgresql://a:secret@127.0.0.1:{silent.getsockname()[1]}/x"
        async with started("serve", "--listen=127.0.0.1:0", f"--database-url={url}") as process:
            asking, _ = await asyncio.get_running_loop().sock_accept(silent)
            with asking:
                process.send_signal(signal.SIGTERM)
                finished = await finish(process)

    assert finished.code == 0
    assert "server.interrupted" in finished.stdout + finished.stderr
    assert "Traceback" not in finished.stderr


async def test_a_signal_ends_it_while_it_creates_its_database_and_the_next_start_creates_it(
    tmp_path: Path,
) -> None:
    async with started(
        *("serve", "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "data"))
    ) as process:
        assert process.stderr is not None
        while b"initialising" not in await process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        finished = await finish(process)

    assert finished.code == 0
    assert "serving on" not in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not _of_directory(tmp_path)
    async with serving(tmp_path / "data") as server:
        await _store_one_entry(server.api)


async def test_a_second_server_on_the_same_data_is_refused_and_the_first_keeps_serving(
    data_dir: Path,
) -> None:
    async with serving(data_dir) as first:
        await _store_one_entry(first.api)

        second = await run("serve", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir))

        assert second.code == 1
        assert str(data_dir) in second.stderr.splitlines()[-1]
        assert "Traceback" not in second.stderr
        assert await _stored(first.api) == ["kept"]


async def test_a_port_in_use_is_a_one_line_error_and_leaves_no_postgres(data_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        finished = await run("serve", "--listen", address, "--data-dir", str(data_dir))

    assert finished.code == 1
    assert address in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr
    assert not _of_directory(data_dir)


UNUSABLE = {
    "no such database": ("postgresql://postgres@/nosuch?host={socket}", "nosuch"),
    "no such role": ("postgresql://nobody:secret@/tasklogs?host={socket}", "nobody"),
    "no port": ("postgresql://a:secret@127.0.0.1:1/x", "refused"),
    "no host": ("postgresql://a:secret@nothing.invalid/x", "known"),
    "no URL": ("secret", "postgresql"),
    "a password with a slash": ("postgresql://a:secret/x@127.0.0.1/x", "postgresql://"),
    "another database": ("mysql://a:secret@127.0.0.1/x", "postgresql"),
}


@pytest.mark.parametrize(("url", "word"), UNUSABLE.values(), ids=UNUSABLE.keys())
async def test_an_unusable_database_is_a_one_line_error_without_the_password(
    shared_postgres: PostgresServer, url: str, word: str
) -> None:
    [directory] = re.findall(r"host=([^&]+)", shared_postgres.dsn())

    finished = await run(
        *("serve", "--listen", "127.0.0.1:0"),
        env={"TASKLOGS_DATABASE_URL": url.format(socket=directory)},
    )

    assert finished.code == 1
    [line] = finished.stderr.splitlines()
    assert word in line
    assert "secret" not in line


async def test_a_database_that_never_answers_ends_the_start() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]

        finished = await run(
            *("serve", "--listen", "127.0.0.1:0"),
            env={"TASKLOGS_DATABASE_URL": f"postgresql://a:secret@127.0.0.1:{port}/x"},
        )

    assert finished.code == 1
    assert finished.stderr.splitlines() == [
        "tasklogs: the database cannot be used: it does not answer"
    ]


async def test_an_external_database_is_used_and_left_running(
    database: str,
) -> None:
    async with (
        started("serve", "--listen", "127.0.0.1:0", "--database-url", database) as process,
        grpc.aio.insecure_channel(await _address_of(process)) as channel,
    ):
        api = Server("", database, channel)
        await _store_one_entry(api)
        assert await _stored(api) == ["kept"]
        assert psutil.Process(process.pid).children(recursive=True) == []
        process.send_signal(signal.SIGINT)
        assert (await finish(process)).code == 0


async def test_it_fails_when_its_own_postgres_ends(data_dir: Path) -> None:
    async with serving(data_dir) as server:
        # Its direct child: a process that it just forked still has the same command line.
        [postmaster] = [
            process
            for process in psutil.Process(server.process.pid).children()
            if "-D" in process.cmdline()
        ]
        os.kill(postmaster.pid, signal.SIGKILL)

        finished = await finish(server.process)

    assert finished.code == 1
    assert "postgres.ended" in finished.stderr
    assert "postgres ended by itself with signal SIGKILL" in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr


async def _address_of(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    said = b""
    while line := await process.stderr.readline():
        said += line
        if match := SERVING.search(line):
            return match[1].decode()
    raise AssertionError(f"the server ended instead of serving:\n{said.decode()}")


async def _store_one_entry(api: Server) -> None:
    token = (await api.create_task()).agent_token
    async with ScriptedAgent.connect(api, token) as agent:
        await agent.append(open_epoch=True, entries=[log_entry(0, "kept")])
        await agent.acked()


async def _read(api: Server) -> logs_pb.GetTaskLogsResponse:
    return await api.logs.GetTaskLogs(logs_pb.GetTaskLogsRequest(task=TASK))


async def _stored(api: Server) -> list[str]:
    return [one.content for one in (await _read(api)).logs]


async def _refuses(api: Server) -> bool:
    try:
        await get_task(api)
    except grpc.aio.AioRpcError as error:
        return "connect" in (error.details() or "")
    return False


async def _all_gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() for process in processes)


def _of_directory(data_dir: Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter()
        if any(str(data_dir) in word for word in _words(process))
    ]


def _words(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:  # the process has ended meanwhile
        return []
