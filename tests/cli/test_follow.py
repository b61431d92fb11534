"""`tasklogs logs -f` as a process, against a scripted server."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import signal
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import pytest
from google.rpc import error_details_pb2

from tasklogs.v1 import task_logs_pb2, types_pb2
from tests.cli.command import (
    TASKLOGS,
    environment,
    finish,
    run,
    run_on_terminal,
    started,
)
from tests.client.scripted_server import Refusal
from tests.support.fakes.log_server import (
    ACTIVE,
    HOLD,
    PAUSED,
    LogServer,
    caught_up,
    delta,
    entries,
    entry,
    epoch_started,
    log_server,
    status,
    withdrawn,
)
from tests.support.fakes.terminal import Terminal
from tests.support.fixtures.conditions import DEADLINE_SECONDS

UTC = {"TZ": "UTC"}
USER = "#0 user, 2026-11-18 11:06:40+00:00"
AGENT = "#1 agent, 2026-11-18 11:06:41+00:00"
NEXT = "#2 user, 2026-11-18 11:06:42+00:00"
DELETED = Refusal(
    grpc.StatusCode.NOT_FOUND,
    'task "local/demo" was not found',
    [error_details_pb2.ErrorInfo(reason="TASK_NOT_FOUND", domain="tasklogs.v1")],
)
DRAINING = Refusal(
    grpc.StatusCode.UNAVAILABLE,
    "the server is stopping",
    [error_details_pb2.ErrorInfo(reason="DRAINING", domain="tasklogs.v1")],
)


@pytest.fixture
async def server() -> AsyncIterator[LogServer]:
    async with log_server() as server:
        yield server


def follow(server: LogServer, *arguments: str) -> tuple[str, ...]:
    return ("logs", "local/demo", "-f", *arguments, "--server", server.address)


async def test_in_a_pipe_growth_is_appended_and_a_rewrite_is_printed_once_it_is_final(
    server: LogServer,
) -> None:
    server.streams = [
        [
            status("c0", ACTIVE),
            entries("c2", entry(0, "6 x 7?", 1), entry(1, "4", 2)),
            caught_up("c2"),
            delta("c3", 1, 2, 3, keep=1, text="2\x1b[0m"),
            delta("c4", 1, 3, 4, keep=1, text="3"),
            delta("c5", 1, 4, 5, keep=1, text="4"),
            entries("c6", entry(2, "Thanks", 6)),
            DELETED,
        ]
    ]

    finished = await run(*follow(server), env=UTC)

    assert finished.stdout == (
        f"{USER}\n6 x 7?\n\n{AGENT}\n42\x1b[0m\n\n{AGENT}, rewritten\n44\n\n{NEXT}\nThanks\n\n"
    )
    assert finished.stderr == (
        "tasklogs: local/demo is active\n"
        'tasklogs: not found: task "local/demo" was not found (TASK_NOT_FOUND)\n'
    )
    assert finished.code == 1


async def test_a_rewrite_that_extends_the_printed_text_is_appended(server: LogServer) -> None:
    server.streams = [
        [
            status("c0", ACTIVE),
            entries("c1", entry(1, "It is", 1)),
            entries("c2", entry(1, "It\n*", 2)),
            entries("c3", entry(1, "It is 42", 3)),
            DELETED,
        ]
    ]

    assert (await run(*follow(server), env=UTC)).stdout == f"{AGENT}\nIt is 42\n\n"


async def test_a_pause_prints_a_held_back_entry(server: LogServer) -> None:
    server.streams = [
        [
            status("c0", ACTIVE),
            entries("c1", entry(1, "ab", 1)),
            entries("c2", entry(1, "ac", 2)),
            status("c2", PAUSED),
            HOLD,
        ]
    ]

    async with started(*follow(server), env=UTC) as process:
        shown = await read_until(process.stdout, b"rewritten\nac")

    assert shown == f"{AGENT}\nab\n\n{AGENT}, rewritten\nac".encode()


async def test_events_other_than_entries_are_printed_on_stderr(server: LogServer) -> None:
    server.streams = [
        [
            status("c0", ACTIVE),
            caught_up("c0"),
            entries("c1", entry(1, "Oops", 1)),
            withdrawn("c2", 1, 2),
            epoch_started("c3", 2, 3),
            DRAINING,
        ],
        [status("c3", PAUSED), DELETED],
    ]

    finished = await run(*follow(server))

    assert finished.stderr.splitlines()[:-1] == [
        "tasklogs: local/demo is active",
        "tasklogs: local/demo: no entries yet",
        "tasklogs: #1 was withdrawn: it is no longer part of the conversation",
        "tasklogs: local/demo: epoch 2, a new conversation begins",
        "tasklogs: unavailable: the server is stopping; retrying",
        f"tasklogs: reconnected to {server.address}",
        "tasklogs: local/demo is paused",
    ]


@pytest.mark.parametrize("beginning", [["-n", "0"], ["--cursor", "c0"]], ids=" ".join)
async def test_a_follow_from_a_cursor_does_not_call_the_log_empty(
    server: LogServer, beginning: list[str]
) -> None:
    server.streams = [[status("c0", ACTIVE), caught_up("c0"), DELETED]]

    finished = await run(*follow(server), *beginning)

    assert "tasklogs: local/demo is active" in finished.stderr
    assert "no entries" not in finished.stderr


async def test_each_event_is_a_line_of_json_as_the_api_has_it_with_its_cursor(
    server: LogServer,
) -> None:
    server.streams = [
        [
            status("c0", ACTIVE),
            entries("c1", entry(1, "4", 1)),
            caught_up("c1"),
            delta("c2", 1, 1, 2, keep=1, text="2\u2028\x1b"),
            withdrawn("c3", 1, 3),
            epoch_started("c4", 2, 4),
            DELETED,
        ]
    ]

    finished = await run(*follow(server, "-o", "jsonl", "-n", "3"))

    lines = [json.loads(line) for line in finished.stdout.splitlines()]
    assert [line["cursor"] for line in lines] == ["c0", "c1", "c1", "c2", "c3", "c4"]
    assert lines[0]["status"]["status"] == "TASK_STATUS_ACTIVE"
    assert lines[3]["entries"] == {
        "epoch": 1,
        "logs": [
            {
                "id": 1,
                "type": "TASK_LOG_TYPE_OUTPUT",
                "time": "2026-11-18T11:06:41.123456789Z",
                "revision": "2",
                "droppedBytes": "0",
                "sourceId": "",
                "name": "",
                "callId": "",
                "content": "42\u2028\x1b",
            }
        ],
    }
    assert lines[2] == {"cursor": "c1", "caughtUp": {}}
    assert lines[4]["entryWithdrawn"] == {"epoch": 1, "id": 1, "revision": "3"}
    assert lines[5]["epochStarted"] == {"epoch": 2, "revision": "4"}
    assert server.follows[0].tail == 3


async def test_a_follow_with_a_cursor_continues_after_it(server: LogServer) -> None:
    server.streams = [[DELETED]]

    await run(*follow(server, "--cursor", "c7", "--source", "snapshot", "--types", "input"))

    assert server.follows == [
        task_logs_pb2.FollowTaskLogsRequest(
            task="local/demo",
            cursor="c7",
            deltas=True,
            source=task_logs_pb2.LOG_SOURCE_SNAPSHOT,
            types=[types_pb2.TASK_LOG_TYPE_INPUT],
            compressed=True,
        )
    ]


async def test_an_expired_cursor_error_has_the_oldest_valid_cursor(server: LogServer) -> None:
    info = error_details_pb2.ErrorInfo(
        reason="CURSOR_EXPIRED", domain="tasklogs.v1", metadata={"oldest_cursor": "c9"}
    )
    server.streams = [[Refusal(grpc.StatusCode.OUT_OF_RANGE, "the place is gone", [info])]]

    finished = await run(*follow(server, "--cursor", "c7"))

    assert finished.code == 1
    assert finished.stderr == (
        "tasklogs: the place is gone; the oldest cursor that is still valid: --cursor c9\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("-f", "-o", "json"),
        ("-f", "--epoch", "1"),
        ("-f", "--max-staleness", "1"),
        ("-f", "--cursor", "c", "-n", "1"),
        ("--cursor", "c"),
    ],
)
async def test_options_that_exclude_each_other_are_bad_usage(arguments: tuple[str, ...]) -> None:
    assert (await run("logs", "local/demo", *arguments)).code == 2


async def test_a_missing_server_is_reported_at_once_and_retried_within_the_timeout() -> None:
    async with log_server() as server:
        arguments = follow(server, "--timeout", "0.5")

    finished = await run(*arguments)

    assert finished.code == 1
    first, last = finished.stderr.splitlines()
    assert "no connection to 127.0.0.1:" in first
    assert "no server answers at 127.0.0.1:" in last


async def test_ctrl_c_in_a_pipe_exits_0_with_the_last_line_ended(server: LogServer) -> None:
    server.streams = [[status("c0", ACTIVE), entries("c1", entry(1, "It is", 1)), HOLD]]

    async with started(*follow(server), env=UTC) as process:
        shown = await read_until(process.stdout, b"It is")
        process.send_signal(signal.SIGINT)
        finished = await finish(process)

    assert finished.code == 0
    assert shown.decode() + finished.stdout == f"{AGENT}\nIt is\n\n"
    assert finished.stderr == "tasklogs: local/demo is active\n"


@pytest.mark.parametrize("output", ["text", "jsonl"])
async def test_a_reader_that_leaves_a_silent_follow_ends_it_quietly(
    server: LogServer, output: str
) -> None:
    server.streams = [[status("c0", ACTIVE), entries("c1", entry(1, "It is", 1)), HOLD]]
    reading, writing = os.pipe()

    async with started(*follow(server, "-o", output), stdout=writing) as process:
        os.close(writing)
        shown = b""
        while b"It is" not in shown:
            shown += await asyncio.to_thread(os.read, reading, 65536)
        os.close(reading)
        finished = await finish(process)

    assert finished.stderr.replace("tasklogs: local/demo is active\n", "") == ""


async def test_a_reader_that_has_left_is_not_reported(server: LogServer) -> None:
    server.streams = [[status("c0", ACTIVE), entries("c1", entry(1, "x" * 100_000, 1)), HOLD]]
    reading, writing = os.pipe()
    os.close(reading)

    async with started(*follow(server, "-o", "jsonl"), stdout=writing) as process:
        os.close(writing)
        finished = await finish(process)

    assert finished.stderr == ""


async def test_a_dumb_terminal_gets_what_a_pipe_gets_with_control_characters_escaped(
    server: LogServer,
) -> None:
    server.streams = [
        [
            status("c0", ACTIVE),
            entries("c1", entry(1, "a\r", 1)),
            delta("c2", 1, 1, 2, keep=2, text="\nb\r"),
            delta("c3", 1, 2, 3, keep=5, text="\x1b[2J"),
            delta("c4", 1, 3, 4, keep=0, text="c\r"),
            DELETED,
        ]
    ]

    finished = await run_on_terminal(*follow(server), env={**UTC, "TERM": "dumb"})

    assert finished.stdout.splitlines()[1:-1] == [
        AGENT,
        "a",
        r"b\x0d\x1b[2J",
        "",
        f"{AGENT}, rewritten",
        "c",
        "",
    ]


async def test_on_a_terminal_an_answer_grows_in_place_and_ctrl_c_exits_0(
    server: LogServer,
) -> None:
    go_on = [asyncio.Event() for _ in range(3)]
    server.streams = [
        [
            status("c0", ACTIVE),
            entries("c2", entry(0, "6 x 7?", 1), entry(1, "Hm\n* 1 s\n>", 2)),
            go_on[0],
            entries("c3", entry(1, "Hm\n* 2 s\n>", 3)),
            go_on[1],
            delta("c4", 1, 3, 4, keep=3, text="It is \x1b[31m"),
            go_on[2],
            delta("c5", 1, 4, 5, keep=14, text="42"),
            HOLD,
        ]
    ]
    top = f"tasklogs: local/demo is active\n{USER}\n6 x 7?\n\n{AGENT}\n"

    async with on_terminal(*follow(server)) as (process, screen):
        await screen.wait_for(f"{top}Hm\n* 1 s\n>")
        go_on[0].set()
        await screen.wait_for(f"{top}Hm\n* 2 s\n>")
        go_on[1].set()
        await screen.wait_for(f"{top}Hm\nIt is \\x1b[31m")
        go_on[2].set()
        await screen.wait_for(f"{top}Hm\nIt is \\x1b[31m42")
        screen.type("\x03")
        code = await process.wait()
        await screen.wait_for(f"{top}Hm\nIt is \\x1b[31m42^C\n\n")

    assert code == 0


@dataclass
class Screen:
    """The output of a process on its terminal, read while it runs."""

    descriptor: int
    terminal: Terminal = field(default_factory=lambda: Terminal(100, 30))
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def read(self) -> None:
        try:
            piece = os.read(self.descriptor, 65536)
        except OSError:
            piece = b""
        if not piece:
            asyncio.get_running_loop().remove_reader(self.descriptor)
        self.terminal.feed(piece.decode())
        self.changed.set()

    def type(self, keys: str) -> None:
        os.write(self.descriptor, keys.encode())

    async def wait_for(self, text: str) -> None:
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                while self.terminal.text() != text:
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            assert self.terminal.text() == text


@asynccontextmanager
async def on_terminal(
    *arguments: str,
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Screen]]:
    """Run it as the foreground process of a terminal of 100 x 30."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    process = await asyncio.create_subprocess_exec(
        TASKLOGS,
        *arguments,
        env=environment({**UTC, "NO_COLOR": "1"}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        # Ctrl-C reaches the foreground of the terminal that controls the session.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    screen = Screen(ours)
    asyncio.get_running_loop().add_reader(ours, screen.read)
    try:
        yield process, screen
    finally:
        asyncio.get_running_loop().remove_reader(ours)
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(ours)


async def read_until(stream: asyncio.StreamReader | None, end: bytes) -> bytes:
    assert stream is not None
    return await stream.readuntil(end)
