"""A server of tomorrow at the command line: the output has all that is known, and the numbers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2

from tasklogs.v1 import task_logs_pb2, tasks_pb2, types_pb2
from tests.cli.command import run
from tests.client.scripted_server import Refusal
from tests.compat import tomorrow
from tests.compat.test_server_of_tomorrow_at_the_client import (
    NEW,
    grown,
    of_type,
    pinned,
    unknown_form,
)
from tests.support.fakes.log_server import (
    ACTIVE,
    HOLD,
    LogServer,
    caught_up,
    entries,
    entry,
    log_server,
    status,
)

DELETED = Refusal(
    grpc.StatusCode.NOT_FOUND,
    "gone",
    [error_details_pb2.ErrorInfo(reason="TASK_NOT_FOUND", domain="tasklogs.v1")],
)


@pytest.fixture
async def server() -> AsyncIterator[LogServer]:
    async with log_server() as server:
        yield server


def log_of_tomorrow() -> task_logs_pb2.GetTaskLogsResponse:
    """Return a page with types and a status that nobody knows today."""
    return grown(
        task_logs_pb2.GetTaskLogsResponse(
            logs=[entry(0, "one", 1), of_type(7, 1), of_type(NEW, 2)],
            status=types_pb2.TaskStatus.ValueType(NEW),
            snapshot=True,
            snapshot_at=Timestamp(seconds=1_795_000_000),
            epoch=1,
        )
    )


def task_of_tomorrow() -> tasks_pb2.Task:
    """Return a task in a status that nobody knows today."""
    task = tasks_pb2.Task(
        id="1",
        owner="local",
        name="demo",
        status=types_pb2.TaskStatus.ValueType(NEW),
        created_at=Timestamp(seconds=1_795_000_000),
    )
    task.status_detail.build.number = 1
    task.status_detail.build.transition = types_pb2.BuildTransition.ValueType(98)
    return grown(task)


async def test_json_has_the_numbers_of_unknown_values(server: LogServer) -> None:
    server.answers = [log_of_tomorrow()]
    shown = await run("logs", "local/demo", "-o", "json", "--server", server.address)

    assert shown.code == 0, shown.stderr
    log = json.loads(shown.stdout)
    assert log["status"] == NEW
    assert [one["type"] for one in log["logs"]] == ["TASK_LOG_TYPE_INPUT", 7, NEW]
    assert [one["content"] for one in log["logs"]] == ["one", "of type 7", f"of type {NEW}"]


async def test_json_lines_have_the_numbers_of_unknown_values(server: LogServer) -> None:
    server.answers = [log_of_tomorrow()]
    shown = await run("logs", "local/demo", "-o", "jsonl", "--server", server.address)

    lines = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [one["type"] for one in lines] == ["TASK_LOG_TYPE_INPUT", 7, NEW]
    assert [one["id"] for one in lines] == [0, 1, 2]


async def test_text_shows_entries_of_unknown_types(server: LogServer) -> None:
    server.answers = [log_of_tomorrow()]
    shown = await run("logs", "local/demo", "--server", server.address)

    assert shown.code == 0, shown.stderr
    for line in ("one", "of type 7", f"of type {NEW}"):
        assert line in shown.stdout.splitlines()
    headings = [line for line in shown.stdout.splitlines() if line.startswith("#")]
    assert len(headings) == 3
    assert "7" in headings[1]
    assert str(NEW) in headings[2]
    assert str(NEW) in shown.stderr  # the status


async def test_a_follow_as_json_lines_goes_on_after_what_it_does_not_know(
    server: LogServer,
) -> None:
    new_status = status("c", types_pb2.TaskStatus.ValueType(NEW))
    server.streams = [
        [
            status("a", ACTIVE),
            entries("b", entry(0, "one", 1), of_type(7, 1)),
            new_status,
            pinned("d"),
            unknown_form("e", 1, 2, 3),
            HOLD,
        ],
        [status("d", ACTIVE), entries("f", entry(1, "whole", 3)), caught_up("g"), DELETED],
    ]
    shown = await run("logs", "local/demo", "-f", "-o", "jsonl", "--server", server.address)

    lines: list[dict[str, Any]] = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [line["status"]["status"] for line in lines if "status" in line] == [
        "TASK_STATUS_ACTIVE",
        NEW,
        "TASK_STATUS_ACTIVE",
    ]
    logs = [one for line in lines if "entries" in line for one in line["entries"]["logs"]]
    assert [(one["type"], one["content"]) for one in logs] == [
        ("TASK_LOG_TYPE_INPUT", "one"),
        (7, "of type 7"),
        ("TASK_LOG_TYPE_OUTPUT", "whole"),
    ]
    first, second = server.follows
    assert (second.cursor, second.deltas) == ("d", False)
    assert first.deltas


async def test_a_follow_as_text_loses_nothing_around_what_it_does_not_know(
    server: LogServer,
) -> None:
    server.streams = [
        [
            status("a", ACTIVE),
            entries("b", entry(0, "one", 1), of_type(NEW, 1)),
            pinned("c"),
            unknown_form("d", 1, 2, 3),
            HOLD,
        ],
        [
            status("c", ACTIVE),
            entries("e", entry(1, "of type 99, and more", 3), entry(2, "two", 4)),
            caught_up("f"),
            DELETED,
        ],
    ]
    shown = await run("logs", "local/demo", "-f", "--server", server.address)

    for text in ("one", "of type 99", ", and more", "two"):
        assert text in shown.stdout
    assert server.follows[1].cursor == "c"


async def test_a_task_of_tomorrow_is_shown(server: LogServer) -> None:
    server.answers = [task_of_tomorrow(), task_of_tomorrow()]
    text = await run("task", "get", "local/demo", "--server", server.address)
    as_json = await run("task", "get", "local/demo", "-o", "json", "--server", server.address)

    assert (text.code, as_json.code) == (0, 0), text.stderr + as_json.stderr
    assert str(NEW) in text.stdout.splitlines()[0]
    assert "98" in text.stdout
    task = json.loads(as_json.stdout)
    assert task["status"] == NEW
    assert task["statusDetail"]["build"]["transition"] == 98


async def test_tasks_of_tomorrow_are_listed(server: LogServer) -> None:
    answer = tasks_pb2.ListTasksResponse(tasks=[task_of_tomorrow()])
    server.answers = [grown(answer), grown(answer)]
    text = await run("task", "list", "--server", server.address)
    as_json = await run("task", "list", "-o", "json", "--server", server.address)

    assert "local/demo" in text.stdout
    assert str(NEW) in text.stdout
    assert [one["status"] for one in json.loads(as_json.stdout)] == [NEW]


async def test_an_unknown_reason_is_printed_with_the_message(server: LogServer) -> None:
    info = error_details_pb2.ErrorInfo(reason="REASON_OF_TOMORROW", domain="tasklogs.v1")
    unknown = tomorrow.make("ThingOfTomorrow", text="new")
    server.answers = [Refusal(grpc.StatusCode.FAILED_PRECONDITION, "the moon", [info, unknown])]
    shown = await run("task", "get", "local/demo", "--server", server.address)

    assert shown.code == 1
    assert shown.stdout == ""
    assert "the moon" in shown.stderr
    assert "Traceback" not in shown.stderr
