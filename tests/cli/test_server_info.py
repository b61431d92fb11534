"""`tasklogs server-info`."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import types_pb2
from tests.cli.command import run
from tests.client.scripted_server import Refusal, ScriptedServer

INPUT, OUTPUT = types_pb2.TASK_LOG_TYPE_INPUT, types_pb2.TASK_LOG_TYPE_OUTPUT
UNKNOWN: Any = 99
INFO = pb.GetServerInfoResponse(
    version="0.2.0",
    features=["types_filter", "tele\x1bpathy"],
    entry_types=[INPUT, OUTPUT, UNKNOWN],
    limits=pb.GetServerInfoResponse.Limits(
        message_bytes=4_194_304,
        entry_bytes=1_048_576,
        page_entries=1000,
        page_tasks=1000,
        upload_bytes=67_108_864,
        default_deadline=Duration(seconds=60),
    ),
)


async def test_text_has_both_versions_features_types_and_limits(scripted: ScriptedServer) -> None:
    scripted.script = [INFO]

    shown = await run("server-info", "--server", scripted.address)

    assert (shown.code, shown.stderr) == (0, "")
    assert shown.stdout.splitlines() == [
        f"tasklogs 0.2.0 at {scripted.address}",
        f"  this command {version('tasklogs')}",
        "  features     types_filter, tele\\x1bpathy",
        "  entry types  INPUT, OUTPUT, 99",
        "  request      at most 4,194,304 bytes",
        "  entry        at most 1,048,576 bytes of content",
        "  page         at most 1,000 entries, 1,000 tasks",
        "  upload       at most 67,108,864 bytes of content",
        "  deadline     60 s for calls without one",
    ]


async def test_json_has_the_response_and_the_version_of_the_command(
    scripted: ScriptedServer,
) -> None:
    scripted.script = [INFO]

    shown = await run("server-info", "--server", scripted.address, "-o", "json")

    said = json.loads(shown.stdout)
    assert said["clientVersion"] == version("tasklogs")
    assert said["server"]["version"] == "0.2.0"
    assert said["server"]["features"] == ["types_filter", "tele\x1bpathy"]
    assert said["server"]["limits"]["uploadBytes"] == "67108864"
    assert "\x1b" not in shown.stdout


async def test_an_empty_response_is_shown_too(scripted: ScriptedServer) -> None:
    scripted.script = [pb.GetServerInfoResponse()]

    shown = await run("server-info", "--server", scripted.address)

    assert shown.code == 0
    assert "features     none" in shown.stdout


async def test_a_server_without_the_method_is_named_an_older_one(scripted: ScriptedServer) -> None:
    scripted.script = [Refusal(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")]

    shown = await run("server-info", "--server", scripted.address)

    assert shown.code == 1
    assert f"the server at {scripted.address} does not have this method" in shown.stderr
    assert "older TaskLogs server" in shown.stderr


OLDEST = Refusal(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
OLDER = pb.GetServerInfoResponse(version="0.0.9")


@pytest.mark.parametrize(
    ("answer", "lacks"),
    [(OLDEST, "is older than 0.1"), (OLDER, "(version 0.0.9) lacks {feature}")],
    ids=["without the method", "without the feature"],
)
@pytest.mark.parametrize(
    ("arguments", "option", "feature"),
    [
        (("logs", "local/demo", "--types", "input"), "--types", "types_filter"),
        (("logs", "local/demo", "-f", "--types", "input"), "types", "types_filter"),
        (("task", "list", "--label", "a=1"), "--label", "task_labels"),
        (("task", "create", "demo", "--label", "a=1"), "--label", "task_labels"),
        (("task", "create", "demo", "--request-id", "x"), "--request-id", "create_request_id"),
    ],
    ids=["logs", "follow", "list", "create", "request-id"],
)
async def test_an_option_that_an_older_server_would_ignore_fails(
    scripted: ScriptedServer,
    arguments: tuple[str, ...],
    option: str,
    feature: str,
    answer: pb.GetServerInfoResponse | Refusal,
    lacks: str,
) -> None:
    scripted.script = [answer]

    failed = await run(*arguments, "--server", scripted.address)

    expected = f"`{option}` is not supported: the server {lacks.format(feature=feature)}"
    assert (failed.code, failed.stderr.splitlines()) == (1, [f"tasklogs: {expected}"])
    assert failed.stdout == ""
