"""`tasklogs agent` as a process: its signals, exit codes and lines."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
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

TASKLOGS = Path(sys.executable).with_name("tasklogs")


async def start(*arguments: str, **environment: str) -> asyncio.subprocess.Process:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TASKLOGS_")}
    return await asyncio.create_subprocess_exec(
        str(TASKLOGS),
        "agent",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**kept, **environment},
    )


async def ended(
    process: asyncio.subprocess.Process, timeout: float = DEADLINE_SECONDS
) -> tuple[int, str]:
    """Wait for the end; return the exit code and stderr."""
    async with asyncio.timeout(timeout):
        _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (signal.SIGTERM, pb.Goodbye.REASON_PAUSING),
        (signal.SIGINT, pb.Goodbye.REASON_STOPPING),
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
    process = await start(
        "--server=127.0.0.1:1", f"--agentapi-url={app.url}", TASKLOGS_AGENT_TOKEN="x"
    )
    assert process.stderr is not None
    await process.stderr.readline()  # it has begun
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(DEADLINE_SECONDS):
        while b"agent.leaving" not in await process.stderr.readline():
            pass
    process.send_signal(signal.SIGINT)
    code, said = await ended(process)
    assert code == 1
    assert "second signal" in said.splitlines()[-1]


async def test_an_unconfirmed_goodbye_ends_with_exit_1_within_10_s(app: FakeTaskApp) -> None:
    began = time.monotonic()
    process = await start(
        "--server=127.0.0.1:1", f"--agentapi-url={app.url}", TASKLOGS_AGENT_TOKEN="x"
    )
    assert process.stderr is not None
    await process.stderr.readline()  # it has begun
    to_begin_seconds = time.monotonic() - began
    process.send_signal(signal.SIGTERM)
    # What it does itself at the end takes a machine no longer than to start it.
    code, said = await ended(process, timeout=10.0 + to_begin_seconds)
    assert code == 1
    assert "stopped without a confirmed goodbye" in said.splitlines()[-1]


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
    for source in SOURCES:
        assert source in shown.decode()
