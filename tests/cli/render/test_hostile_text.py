"""Untrusted text on every way to a terminal: it is shown and cannot steer the terminal."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from tasklogs.cli.render.terminal_text import one_line, safe_json, visible, visible_name
from tasklogs.v1 import tasks_pb2, types_pb2
from tests.cli.command import Finished, run, run_on_terminal
from tests.cli.samples import entry, page, task
from tests.client.scripted_server import Refusal, ScriptedServer
from tests.support.fakes.log_server import ACTIVE, LogServer, entries, log_server, status
from tests.support.fakes.log_server import entry as followed_entry

CLIPBOARD = "\x1b]52;c;cm0gLXJmIH4K\x07"
HYPERLINK = "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\"
MARKUP = "[red]x[/red][link=http://evil.example]:smile:[/]"
HIDDEN = "a\u200bb\u2060\ufeff\U000e0041\U000e007f\xad\u3164c\ufe0fd\u200de"
HOSTILE = (
    f"{CLIPBOARD}{HYPERLINK}\x9b2J\x9d0;owned\x9c\x00\x08\x7f\u202egnp\u2066\r{HIDDEN}{MARKUP}"
)
_OURS = re.compile(r"\x1b\[(?:[012]|0?1;?\d*)?m")
"""Bold and dim, which headings and tables use."""
_STEERING = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    r"\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff]"
)


def hostile_task() -> tasks_pb2.Task:
    made = task(name=HOSTILE, display_name=HOSTILE)
    made.owner, made.id, made.prompt = HOSTILE, HOSTILE, f"{HOSTILE}\n{HOSTILE}"
    made.labels[HOSTILE] = made.etag = HOSTILE
    return made


def refusal(reason: str = HOSTILE) -> Refusal:
    details = [
        error_details_pb2.ErrorInfo(
            reason=reason, domain="tasklogs.v1", metadata={"oldest_cursor": HOSTILE}
        ),
        error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field=HOSTILE, description=HOSTILE)
            ]
        ),
    ]
    return Refusal(grpc.StatusCode.OUT_OF_RANGE, HOSTILE, details)


def steering(screen: str) -> list[str]:
    """Return what is on the screen and not written by the command itself."""
    return _STEERING.findall(_OURS.sub("", screen))


def named(type_: types_pb2.TaskLogType.ValueType) -> types_pb2.TaskLogEntry:
    made = entry(type_, HOSTILE)
    made.type = type_
    made.source_id = made.name = made.call_id = HOSTILE
    return made


TOOL_CALL = named(types_pb2.TASK_LOG_TYPE_TOOL_CALL)
OF_TOOLS = [
    TOOL_CALL,
    named(types_pb2.TASK_LOG_TYPE_TOOL_RESULT),
    named(types_pb2.TASK_LOG_TYPE_NOTICE),
]
LISTED = tasks_pb2.ListTasksResponse(tasks=[hostile_task()])
CREATED = tasks_pb2.CreateTaskResponse(task=hostile_task(), agent_token=HOSTILE)
BUILD = ("--build-number", "1", "--transition", "start", "--job-status", "running")


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (("task", "list"), LISTED),
        (("task", "list", "-o", "json"), LISTED),
        (("task", "get", "local/demo"), hostile_task()),
        (("task", "get", "local/demo", "-o", "json"), hostile_task()),
        (("task", "create", "demo"), CREATED),
        (("task", "create", "demo", "-o", "json"), CREATED),
        (
            ("task", "report-build", "local/demo", *BUILD),
            tasks_pb2.ReportBuildResponse(task=hostile_task()),
        ),
        (
            ("task", "rotate-token", "local/demo"),
            tasks_pb2.RotateAgentTokenResponse(agent_token=HOSTILE),
        ),
        (("logs", "local/demo"), page(entry(0, HOSTILE))),
        (("logs", "local/demo", "-v"), page(*OF_TOOLS)),
        (("logs", "local/demo"), page(*OF_TOOLS)),
        (("logs", "local/demo", "-o", "json"), page(entry(0, HOSTILE), TOOL_CALL)),
        (("logs", "local/demo", "-o", "jsonl"), page(entry(0, HOSTILE))),
        *(((*call, "local/demo"), refusal()) for call in (("task", "get"), ("logs",))),
        (("task", "update", "local/demo", "--label", "a=b"), refusal()),
        (("task", "list"), refusal("TASK_STATE_CONFLICT")),
        (("task", "delete", "--yes", HOSTILE.replace("\0", "")), refusal()),
    ],
    ids=lambda value: (
        " ".join(value)[:30].encode("ascii", "replace").decode()
        if isinstance(value, tuple)
        else type(value).__name__
    ),
)
async def test_a_read_shows_hostile_text_without_steering_the_terminal(
    scripted: ScriptedServer, arguments: tuple[str, ...], answer: Message | Refusal
) -> None:
    scripted.script.append(answer)
    finished = await run_on_terminal(*arguments, "--server", scripted.address)
    assert steering(finished.stdout) == []
    assert MARKUP in finished.stdout.replace("\n", "")


async def follow(server: LogServer, *options: str) -> Finished:
    return await run_on_terminal("logs", "-f", "local/demo", *options, "--server", server.address)


@pytest.mark.parametrize("options", [(), ("-o", "jsonl"), ("--escaped",), ("-v",)])
async def test_a_follow_shows_hostile_text_without_steering_the_terminal(
    options: Iterable[str],
) -> None:
    async with log_server() as server:
        server.streams = [
            [
                status("a", ACTIVE),
                entries("b", followed_entry(0, HOSTILE, 1), *OF_TOOLS),
                refusal(),
            ]
        ]
        finished = await follow(server, *options)
    assert finished.code == 1
    assert steering(finished.stdout) == []
    assert finished.stdout.replace("\n", "").count(MARKUP) >= 3


@pytest.mark.parametrize("follows", [False, True])
async def test_a_terminal_gets_raw_text_on_request(scripted: ScriptedServer, follows: bool) -> None:
    if follows:
        async with log_server() as server:
            server.streams = [
                [status("a", ACTIVE), entries("b", followed_entry(0, HOSTILE, 1)), refusal()]
            ]
            finished = await follow(server, "--raw")
    else:
        scripted.script.append(page(entry(0, HOSTILE)))
        finished = await run_on_terminal(
            "logs", "local/demo", "--raw", "--server", scripted.address
        )
    assert HOSTILE in finished.stdout


async def test_a_pipe_gets_escaped_text_on_request(scripted: ScriptedServer) -> None:
    scripted.script.append(page(entry(0, HOSTILE)))
    finished = await run("logs", "local/demo", "--escaped", "--server", scripted.address)
    assert steering(finished.stdout) == []
    assert MARKUP in finished.stdout


async def test_raw_and_escaped_need_text_output(scripted: ScriptedServer) -> None:
    finished = await run("logs", "local/demo", "--raw", "-o", "json", "--server", scripted.address)
    assert finished.code == 2
    assert "only with -o text" in finished.stderr


@pytest.mark.parametrize(
    "piece",
    [
        *(" ", "\t ", "\n ", "\r\n", "\r", "\x1b", "\u2028", "\x1f", "a "),
        *("\u0301", "a\u0301", "\u200d", "\U0001f468\u200d", "\ufe0f", "\u0645\u200c"),
        *("\U000e0067", "1\ufe0f"),
    ],
)
async def test_escaping_takes_time_proportional_to_the_length(piece: str) -> None:
    """A quadratic algorithm would take minutes for so many blanks."""
    text = "a" + piece * (300_000 // len(piece)) + "b"
    began = time.process_time()
    for make_safe in (visible, visible_name, one_line, safe_json):
        await asyncio.to_thread(make_safe, text)
    assert time.process_time() - began < 10
