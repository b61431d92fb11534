"""Every command with a stdout or stderr that is closed, full, stalled, or not UTF-8."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import select
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.cli.command import TASKLOGS, Finished, environment, finish, started
from tests.cli.samples import entry, page, task
from tests.client.scripted_server import ScriptedServer
from tests.support.fakes.log_server import ACTIVE, HOLD, LogServer, entries, log_server, status
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until

CANNOT, FULL, CLOSED = (
    "tasklogs: cannot write to stdout: ",
    "No space left on device",
    "Bad file descriptor",
)
COMMANDS = {
    "help": ["--help"],
    "help of a command": ["logs", "--help"],
    "version": ["--version"],
    "logs": ["logs", "local/demo", "-o", "json"],
    "task create": ["task", "create", "demo"],
    "task list": ["task", "list", "-o", "json"],
    "task get": ["task", "get", "local/demo"],
    "task update": ["task", "update", "local/demo", "--display-name", "x"],
    "task delete": ["task", "delete", "local/demo", "--yes"],
    "task report-agent": [
        *("task", "report-agent", "local/demo", "--build-number", "1", "--lifecycle", "ready"),
    ],
    "task rotate-token": ["task", "rotate-token", "local/demo"],
    "server-info": ["server-info"],
}


async def in_shell(redirections: str, *arguments: str, **env: str) -> Finished:
    """Run the command with the shell's redirections, and pipes for what they leave."""
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f'exec "$@" {redirections}', "sh", str(TASKLOGS), *arguments),
        env=environment(env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await finish(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("buffered", [True, False], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
async def test_a_full_disk_is_told_in_a_line_and_exits_1(
    answering_server: str, arguments: list[str], buffered: bool
) -> None:
    finished = await in_shell(
        *(">/dev/full", *arguments),
        TASKLOGS_SERVER=answering_server,
        PYTHONUNBUFFERED="" if buffered else "1",
    )

    assert (finished.code, finished.stderr.splitlines()[-1]) == (1, f"{CANNOT}{FULL}")


async def test_a_full_disk_in_the_midst_of_a_log_is_told(scripted: ScriptedServer) -> None:
    scripted.script.append(page(entry(0, "x" * 1_000_000)))

    finished = await in_shell(">/dev/full", "logs", "x/y", "--server", scripted.address)

    assert (finished.code, finished.stderr.splitlines()[-1]) == (1, f"{CANNOT}{FULL}")


async def test_a_full_disk_ends_a_follow(server: LogServer) -> None:
    server.streams = [[status("c0", ACTIVE), entries("c1", entry(1, "It is", 1)), HOLD]]

    finished = await in_shell(">/dev/full", "logs", "-f", "x/y", "--server", server.address)

    assert (finished.code, finished.stderr.splitlines()[-1]) == (1, f"{CANNOT}{FULL}")


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
async def test_a_closed_stdout_is_told_in_a_line_and_exits_1(
    answering_server: str, arguments: list[str]
) -> None:
    finished = await in_shell(">&-", *arguments, TASKLOGS_SERVER=answering_server)

    assert (finished.code, finished.stderr.splitlines()[-1]) == (1, f"{CANNOT}{CLOSED}")


@pytest.mark.parametrize("redirections", ["2>&-", "2>/dev/full", "<&-", "<&- 2>&-"])
async def test_a_result_is_complete_without_stderr_and_stdin(
    scripted: ScriptedServer, redirections: str
) -> None:
    scripted.script.append(page(entry(0, "hello"), snapshot=True))  # which has a notice

    finished = await in_shell(redirections, "logs", "x/y", "--server", scripted.address, TZ="UTC")

    assert (finished.code, finished.stdout) == (0, "#0 user, 2026-11-18 11:06:40+00:00\nhello\n\n")


@pytest.mark.parametrize("redirections", ["2>&-", "2>/dev/full", ">&- 2>&-", "<&- >&- 2>&-"])
async def test_a_failure_without_stderr_has_its_exit_code(redirections: str) -> None:
    finished = await in_shell(redirections, "task", "get")  # bad usage
    assert finished == Finished(2, "", "")


async def test_no_socket_gets_the_number_of_a_closed_stdout(answering_server: str) -> None:
    finished = await in_shell(
        *("<&- >&-", "task", "create", "demo", "-o", "json"), TASKLOGS_SERVER=answering_server
    )
    assert (finished.code, finished.stderr.splitlines()[-1]) == (1, f"{CANNOT}{CLOSED}")


async def test_a_question_with_a_closed_stdin_is_refused() -> None:
    finished = await in_shell("<&-", "task", "delete", "local/demo")
    assert finished.code == 2
    assert "required without a terminal" in finished.stderr


CONTENT = "“caf\u00e9” \u65e5\u672c \U0001f680 \x7f"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "utf-8:strict"])
async def test_json_is_utf8_whatever_the_encoding_of_stdout(
    scripted: ScriptedServer, encoding: str
) -> None:
    scripted.script += [page(entry(0, CONTENT)), page(entry(0, CONTENT)), task("d", CONTENT)]
    at, env = ("--server", scripted.address), {"PYTHONIOENCODING": encoding}

    whole = await bytes_of("logs", "x/y", "-o", "json", *at, env=env)
    line = await bytes_of("logs", "x/y", "-o", "jsonl", *at, env=env)
    shown = await bytes_of("task", "get", "x/y", "-o", "json", *at, env=env)

    assert json.loads(whole.decode())["logs"][0]["content"] == CONTENT
    assert json.loads(line.decode())["content"] == CONTENT
    assert json.loads(shown.decode())["displayName"] == CONTENT


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
async def test_a_followed_event_is_utf8_whatever_the_encoding_of_stdout(
    server: LogServer, encoding: str
) -> None:
    server.streams = [[entries("c1", entry(1, CONTENT)), HOLD]]

    arguments = ("logs", "-f", "x/y", "-o", "jsonl", "--server", server.address)
    async with started(*arguments, env={"PYTHONIOENCODING": encoding}) as process:
        assert process.stdout is not None
        line = await process.stdout.readline()

    assert json.loads(line.decode())["entries"]["logs"][0]["content"] == CONTENT


async def test_text_has_the_escape_of_what_the_encoding_lacks(scripted: ScriptedServer) -> None:
    scripted.script.append(page(entry(0, CONTENT)))

    shown = await bytes_of(
        *("logs", "x/y", "--server", scripted.address), env={"PYTHONIOENCODING": "latin-1"}
    )

    assert b"\\u201ccaf\xe9\\u201d \\u65e5\\u672c \\U0001f680" in shown


async def bytes_of(*arguments: str, env: dict[str, str]) -> bytes:
    async with started(*arguments, env=env) as process:
        stdout, stderr = await process.communicate()
    assert process.returncode == 0, stderr
    return stdout


@pytest.fixture
async def server() -> AsyncIterator[LogServer]:
    async with log_server() as server:
        server.streams = [[status("c0", ACTIVE), entries("c1", entry(1, "It is", 1)), HOLD]]
        yield server


def followed(server: LogServer) -> tuple[str, ...]:
    return ("logs", "local/demo", "-f", "--server", server.address)


async def test_a_reader_that_leaves_its_socket_ends_a_silent_follow(server: LogServer) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        async with started(*followed(server), stdout=theirs.fileno()) as process:
            theirs.close()
            await asyncio.to_thread(read_until, ours.fileno(), b"It is")
            ours.close()
            finished = await finish(process)

    assert finished.stderr == "tasklogs: local/demo is active\n"


async def test_a_follow_stays_on_a_socket_whose_reader_only_sends_no_more(
    server: LogServer,
) -> None:
    go_on = asyncio.Event()
    server.streams = [[entries("c1", entry(1, "first")), go_on, entries("c2", entry(2, "second"))]]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        async with started(*followed(server), stdout=theirs.fileno()) as process:
            theirs.close()
            await asyncio.to_thread(read_until, ours.fileno(), b"first")
            ours.shutdown(socket.SHUT_WR)
            go_on.set()
            await asyncio.to_thread(read_until, ours.fileno(), b"second")
            process.kill()


async def test_a_follow_into_a_fifo_that_it_could_read_goes_on(
    server: LogServer, tmp_path: Path
) -> None:
    go_on = asyncio.Event()
    server.streams = [[entries("c1", entry(1, "first")), go_on, entries("c2", entry(2, "second"))]]
    os.mkfifo(tmp_path / "fifo")
    both = os.open(tmp_path / "fifo", os.O_RDWR)
    try:
        async with started(*followed(server), stdout=both) as process:
            await asyncio.to_thread(until_readable, both)  # and it stays so
            go_on.set()
            await asyncio.to_thread(read_until, both, b"second")
            process.kill()
    finally:
        os.close(both)


@pytest.fixture
def stalled() -> Iterator[tuple[int, int]]:
    """The ends for reading and writing of the smallest pipe, which nobody reads."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    yield reading, writing
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("size", [10_000, 1_000_000])
@pytest.mark.parametrize("output", ["text", "jsonl"])
async def test_one_ctrl_c_ends_a_follow_into_a_pipe_that_stalls(
    server: LogServer, stalled: tuple[int, int], output: str, size: int
) -> None:
    server.streams = [[entries("c1", entry(1, "x" * size, 1)), HOLD]]

    async with started(*followed(server), "-o", output, stdout=stalled[1]) as process:
        await until_full(stalled[1])
        process.send_signal(signal.SIGINT)
        finished = await finish(process)

    assert (finished.code, finished.stderr) == (0, "")


@pytest.mark.parametrize("size", [5_000, 1_000_000])
async def test_one_ctrl_c_ends_a_read_into_a_pipe_that_stalls(
    scripted: ScriptedServer, stalled: tuple[int, int], size: int
) -> None:
    scripted.script.append(page(entry(0, "x" * size)))

    arguments = ("logs", "x/y", "--server", scripted.address)
    async with started(*arguments, stdout=stalled[1]) as process:
        await until_full(stalled[1])
        process.send_signal(signal.SIGINT)
        finished = await finish(process)

    assert (finished.code, finished.stderr) == (130, "")


async def until_full(pipe: int) -> None:
    """A write that filled a pipe waits in the kernel for the rest of its text."""
    asked = select.poll()
    asked.register(pipe, select.POLLOUT)
    await until(lambda: not asked.poll(0))


def until_readable(descriptor: int) -> None:
    asked = select.poll()
    asked.register(descriptor, select.POLLIN)
    assert asked.poll(DEADLINE_SECONDS * 1000)


def read_until(descriptor: int, end: bytes) -> None:
    shown = b""
    while end not in shown:
        until_readable(descriptor)
        piece = os.read(descriptor, 65536)
        assert piece, shown
        shown += piece
