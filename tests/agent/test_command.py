"""`tasklogs agent` as a process: its signals, exit codes and lines."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import grpc
import pytest

from tasklogs.agent.sources.table import SOURCES
from tasklogs.v1 import task_agents_pb2 as pb
from tests.agent.conftest import until
from tests.support.fakes.agent_server import FakeServer, Refusal
from tests.support.fakes.task_app import FakeTaskApp
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.ports import lasting_port

TASKLOGS = Path(sys.executable).with_name("tasklogs")


async def start(
    *arguments: str,
    program: Sequence[str] = (str(TASKLOGS),),
    stderr: int = asyncio.subprocess.PIPE,
    cwd: Path | None = None,
    **environment: str,
) -> asyncio.subprocess.Process:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TASKLOGS_")}
    return await asyncio.create_subprocess_exec(
        *program,
        "agent",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
        env={**kept, **environment},
        cwd=cwd,
    )


async def ended(
    process: asyncio.subprocess.Process, timeout: float = DEADLINE_SECONDS
) -> tuple[int, str]:
    """Wait for the end; return the exit code and stderr."""
    async with asyncio.timeout(timeout):
        _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, (said or b"").decode()


@contextmanager
def silent_server() -> Iterator[str]:
    """Yield the address of a server that accepts connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (signal.SIGTERM, pb.Goodbye.REASON_PAUSING),
        (signal.SIGINT, pb.Goodbye.REASON_STOPPING),
        (signal.SIGHUP, pb.Goodbye.REASON_STOPPING),
    ],
)
async def test_a_signal_ends_it_with_a_goodbye_and_exit_0(
    app: FakeTaskApp, server: FakeServer, how: signal.Signals, reason: int
) -> None:
    app.become_ready()
    app.say("user", "a secret")
    process = await start(
        "--server", server.address, "--agentapi-url", app.url, TASKLOGS_AGENT_TOKEN="from-env"
    )
    session = await server.session()
    await until(lambda: len(server.store.entries) == 2)
    app.say("agent", "last words")
    process.send_signal(how)
    code, said = await ended(process)
    assert code == 0, said
    assert session.metadata["authorization"] == "Bearer from-env"
    assert server.store.contents[-1] == "last words"
    assert session.messages[-1].goodbye.reason == reason
    for content in ("a secret", "last words", "from-env"):
        assert content not in said


async def test_a_deleted_task_ends_it_with_one_line_and_exit_1(
    app: FakeTaskApp, server: FakeServer, tmp_path: Path
) -> None:
    app.become_ready()
    token_file = tmp_path / "token"
    token_file.write_text("from-file\n")
    process = await start(
        f"--server={server.address}", f"--agentapi-url={app.url}", f"--token-file={token_file}"
    )
    session = await server.session()
    assert session.metadata["authorization"] == "Bearer from-file"
    session.end(Refusal(grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND"))
    code, said = await ended(process)
    assert code == 1
    assert said.splitlines()[-1] == "tasklogs: the task was deleted"
    assert "Traceback" not in said


async def test_a_second_signal_ends_it_at_once(app: FakeTaskApp) -> None:
    with silent_server() as address:
        process = await start(
            f"--server={address}", f"--agentapi-url={app.url}", TASKLOGS_AGENT_TOKEN="x"
        )
        assert process.stderr is not None
        await process.stderr.readline()  # it has begun
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while b"agent.leaving" not in await process.stderr.readline():
                pass
        process.send_signal(signal.SIGINT)
        code, said = await ended(process)
    assert code == 3
    assert "second signal" in said.splitlines()[-1]


async def test_sighup_beside_another_signal_is_no_second_one(
    app: FakeTaskApp, server: FakeServer
) -> None:
    """A shell that ends sends it beside the terminal's, and systemd beside SIGTERM."""
    app.become_ready()
    process = await start(
        f"--server={server.address}", f"--agentapi-url={app.url}", TASKLOGS_AGENT_TOKEN="x"
    )
    session = await server.session()
    for one in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(one)
    code, said = await ended(process)
    assert code == 0, said
    assert session.said_goodbye


async def test_sighup_stays_ignored_under_nohup(app: FakeTaskApp, server: FakeServer) -> None:
    app.become_ready()
    process = await start(
        f"--server={server.address}",
        f"--agentapi-url={app.url}",
        program=("sh", "-c", 'trap "" HUP; exec "$0" "$@"', str(TASKLOGS)),
        TASKLOGS_AGENT_TOKEN="x",
    )
    session = await server.session()
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert (await ended(process))[0] == 0
    assert session.messages[-1].goodbye.reason == pb.Goodbye.REASON_PAUSING


async def test_an_unconfirmed_goodbye_ends_with_exit_3_within_10_s(app: FakeTaskApp) -> None:
    began = time.monotonic()
    with silent_server() as address:
        process = await start(
            f"--server={address}", f"--agentapi-url={app.url}", TASKLOGS_AGENT_TOKEN="x"
        )
        assert process.stderr is not None
        await process.stderr.readline()  # it has begun
        to_begin_seconds = time.monotonic() - began
        process.send_signal(signal.SIGTERM)
        # What it does itself at the end takes a machine no longer than to start it.
        code, said = await ended(process, timeout=10.0 + to_begin_seconds)
    assert code == 3
    assert "stopped without a confirmed goodbye" in said.splitlines()[-1]


async def test_it_leaves_at_once_if_there_is_no_server(app: FakeTaskApp) -> None:
    process = await start(
        "--server=127.0.0.1:1", f"--agentapi-url={app.url}", TASKLOGS_AGENT_TOKEN="x"
    )
    assert process.stderr is not None
    async with asyncio.timeout(DEADLINE_SECONDS):
        while b"stream.ended" not in await process.stderr.readline():
            pass
    process.send_signal(signal.SIGTERM)
    code, said = await ended(process)
    assert code == 3
    after = said[said.index("agent.leaving") :].splitlines()
    assert len(after) == 2, said
    assert after[1].startswith("tasklogs: stopped without a confirmed goodbye: failed to connect")


def full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def pipe_without_a_reader() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize("broken", [full_disk, pipe_without_a_reader])
async def test_a_log_that_cannot_be_written_does_not_end_it(
    app: FakeTaskApp, server: FakeServer, broken: Callable[[], int]
) -> None:
    app.become_ready()
    descriptor = broken()
    process = await start(
        f"--server={server.address}",
        f"--agentapi-url={app.url}",
        stderr=descriptor,
        TASKLOGS_AGENT_TOKEN="x",
    )
    os.close(descriptor)
    session = await server.session()
    await until(lambda: len(server.store.entries) == 1)
    app.say("agent", "last words")
    process.send_signal(signal.SIGTERM)
    assert (await ended(process))[0] == 0
    assert server.store.contents[-1] == "last words"
    assert session.said_goodbye


async def test_a_reader_of_its_log_that_stands_still_does_not_stall_it(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while os.write(writing, b"x" * 4096):
            pass
    os.set_blocking(writing, True)
    process = await start(
        f"--server={server.address}",
        f"--agentapi-url={app.url}",
        stderr=writing,
        TASKLOGS_AGENT_TOKEN="x",
    )
    session = await server.session()
    await until(lambda: len(server.store.entries) == 1)
    process.send_signal(signal.SIGTERM)
    assert (await ended(process))[0] == 0
    assert session.said_goodbye
    os.close(reading)
    os.close(writing)


_WITH_A_SLOW_NAME_SERVER = """
import socket, sys, threading
socket.getaddrinfo = lambda *_, **__: threading.Event().wait()
from tasklogs.cli.main import main
main()
"""


async def test_a_look_up_that_hangs_does_not_delay_its_end(server: FakeServer) -> None:
    process = await start(
        f"--server={server.address}",
        "--agentapi-url=http://agentapi.example:3284",
        program=(sys.executable, "-c", _WITH_A_SLOW_NAME_SERVER),
        TASKLOGS_AGENT_TOKEN="x",
    )
    session = await server.session()
    process.send_signal(signal.SIGTERM)
    code, said = await ended(process)
    assert code == 0, said
    assert session.said_goodbye


async def test_a_token_on_the_command_line_is_warned_about(
    app: FakeTaskApp, server: FakeServer
) -> None:
    process = await start(
        f"--server={server.address}", f"--agentapi-url={app.url}", "--token=secret-token"
    )
    session = await server.session()
    assert session.metadata["authorization"] == "Bearer secret-token"
    process.send_signal(signal.SIGTERM)
    code, said = await ended(process)
    assert code == 0
    assert "`ps` shows --token" in said
    assert "secret-token" not in said


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "no agent token"),
        (["--token=x", "--token-file=y"], 2, "one of"),
        (["--token=x y"], 2, "characters"),
        (["--token=" + "x" * 16_385], 2, "more than 16384 bytes"),
        (["--token-file=/nonexistent/token"], 1, "cannot read the token"),
        (["--token=x", "--agentapi-url=localhost"], 2, "not an http URL"),
        *(
            (["--token=x", f"--agentapi-url={url}"], 2, f"{url!r} is not an http URL")
            for url in ("http://a..b:3284", "http://[::1", "http://[::1]x:3", "http://h:0")
        ),
        (["--token=x", f"--agentapi-url=http://{'x' * 64}.y"], 2, "not an http URL"),
        (["--token=x", "--agentapi-url=http://h:99999"], 2, "not an http URL"),
        (["--token=x", "--server=nowhere"], 2, "not HOST:PORT"),
        (["--token=x", "--server=a..b:1"], 2, "not HOST:PORT"),
        (["--token=x", "--server=[::g]:1"], 2, "not HOST:PORT"),
        (["--token=x", "--build-number=0"], 2, "0 is not from 1"),
    ],
)
async def test_bad_usage_is_named_in_one_line(arguments: list[str], code: int, said: str) -> None:
    found, text = await ended(await start(*arguments))
    assert found == code
    assert said in text.splitlines()[-1]
    assert "Traceback" not in text


async def test_the_start_event_has_what_was_started_and_no_secret(
    app: FakeTaskApp, server: FakeServer
) -> None:
    url = app.url.replace("http://", "http://user:a-password@")
    process = await start(
        f"--server={server.address}",
        f"--agentapi-url={url}",
        "--build-number=3",
        TASKLOGS_AGENT_TOKEN="secret-token",
        TASKLOGS_LOG_FORMAT="json",
        TASKLOGS_LOG_LEVEL="info",
    )
    await server.session()
    process.send_signal(signal.SIGTERM)
    code, said = await ended(process)

    assert code == 0, said
    started, *_ = [json.loads(line) for line in said.splitlines()]
    del started["timestamp"]
    assert started == {
        "event": "agent.started",
        "level": "info",
        "version": version("tasklogs"),
        "server": server.address,
        "tls": False,
        "source": "agentapi",
        "place": app.url.removeprefix("http://"),
        "build_number": 3,
    }
    for secret in ("a-password", "secret-token"):
        assert secret not in said


async def test_a_log_level_leaves_out_what_is_below_it(
    app: FakeTaskApp, server: FakeServer
) -> None:
    process = await start(
        f"--server={server.address}",
        f"--agentapi-url={app.url}",
        "--log-level=error",
        TASKLOGS_AGENT_TOKEN="x",
    )
    await server.session()
    process.send_signal(signal.SIGTERM)

    assert await ended(process) == (0, "")


@pytest.mark.parametrize("option", ["--log-format=xml", "--log-level=loud"])
async def test_a_format_or_level_that_does_not_exist_is_refused(option: str) -> None:
    code, said = await ended(await start("--token=x", option))
    assert code == 2
    assert "is not one of" in said


async def test_help_names_every_variable() -> None:
    process = await start("--help")
    out, _ = await process.communicate()
    for variable in (
        "SERVER",
        "AGENT_TOKEN",
        "AGENT_TOKEN_FILE",
        "AGENTAPI_URL",
        "BUILD_NUMBER",
        "LOG_FORMAT",
        "LOG_LEVEL",
    ):
        assert f"TASKLOGS_{variable}]".encode() in out or f"TASKLOGS_{variable};".encode() in out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--source=nothing"], f"no source 'nothing': choose one of {', '.join(SOURCES)}"),
        (["--source=auto", "--transcript=/log"], "--source auto finds the transcript itself"),
        (["--transcript=/log"], "agentapi reads no --transcript: choose --source"),
        (["--source=jsonl"], "--source jsonl needs --transcript PATH"),
        (["--redact=(?=a)b"], "--redact '(?=a)b': invalid perl operator: (?="),
        (["--redact=a*"], "--redact 'a*': it matches the empty text"),
        (["--redact=("], "--redact '(': missing ): ("),
    ],
)
async def test_a_source_that_cannot_be_used_is_bad_usage(flags: list[str], said: str) -> None:
    process = await start("--server=127.0.0.1:1", *flags, TASKLOGS_AGENT_TOKEN="tla_any")
    code, printed = await ended(process)
    assert (code, said in printed) == (2, True), printed


async def test_stdin_is_not_read_for_the_token_and_for_the_lines() -> None:
    flags = ("--source=jsonl", "--transcript=-", "--token-file=-")
    code, printed = await ended(await start("--server=127.0.0.1:1", *flags))
    assert (code, "stdin is the token: it cannot be read twice" in printed) == (2, True), printed


async def test_the_help_names_every_source() -> None:
    process = await asyncio.create_subprocess_exec(
        str(TASKLOGS), "agent", "--help", stdout=asyncio.subprocess.PIPE
    )
    shown, _ = await process.communicate()
    for source in (*SOURCES, "auto"):
        assert source in shown.decode()


async def started_on_its_own(
    server: FakeServer, home: Path, agentapi_url: str
) -> asyncio.subprocess.Process:
    return await start(
        f"--server={server.address}",
        "--source=auto",
        f"--agentapi-url={agentapi_url}",
        "--log-format=json",
        TASKLOGS_AGENT_TOKEN="a-token",
        cwd=home,
        HOME=str(home),
    )


async def test_auto_says_what_it_has_chosen_and_reads_it(
    app: FakeTaskApp, server: FakeServer, tmp_path: Path
) -> None:
    app.become_ready()
    process = await started_on_its_own(server, tmp_path, app.url)
    await until(lambda: server.sessions)
    process.send_signal(signal.SIGTERM)
    code, printed = await ended(process)
    assert code == 0
    events = [json.loads(line) for line in printed.splitlines()]
    [chosen] = [event for event in events if event["event"] == "source.chosen"]
    [started] = [event for event in events if event["event"] == "agent.started"]
    assert chosen["source"] == started["source"] == "agentapi"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=lambda one: one.name)
async def test_a_signal_ends_auto_while_there_is_nothing_to_read(
    server: FakeServer, tmp_path: Path, how: signal.Signals
) -> None:
    nothing = f"http://127.0.0.1:{lasting_port()}"
    process = await started_on_its_own(server, tmp_path, nothing)
    assert process.stderr is not None
    async with asyncio.timeout(DEADLINE_SECONDS):
        said = await process.stderr.readline()
    assert json.loads(said)["event"] == "source.awaited"
    process.send_signal(how)
    code, printed = await ended(process)
    assert (code, printed) == (0, "")
