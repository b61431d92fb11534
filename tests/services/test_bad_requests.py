"""Invalid requests: the promised code, each bad field named, nothing stored."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from tasklogs.v1 import task_logs_pb2 as logs_pb
from tasklogs.v1 import tasks_pb2 as pb
from tasklogs.v1 import types_pb2 as types
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.server import Server

GARBAGE = b"\xff\xff\xff\xff"
UNKNOWN_ENUM: Any = 99
NEGATIVE_ENUM: Any = -1
UUID = "6b1f5a3e-8a53-4c1b-9df3-0123456789ab"

MALFORMED_TASKS = [
    "",
    "demo",
    "/demo",
    "local/",
    "local/Demo",
    "local/-demo",
    "local/demo\n",
    "local/" + "x" * 64,
    "lo\0cal/demo",
    "lo\ncal/demo",
    "x" * 256 + "/demo",
    UUID[:-1],
    UUID + "0",
    UUID.replace("-", ""),
    "{" + UUID + "}",
    "urn:uuid:" + UUID,
    UUID.replace("6", "g"),
    "'; DROP TABLE tasks; --",
    "x" * 200_000,
]

BAD_CREATIONS: list[tuple[dict[str, Any], list[str]]] = [
    ({"name": ""}, ["name"]),
    ({"name": "Demo"}, ["name"]),
    ({"name": "demo\n"}, ["name"]),
    ({"name": "x" * 64}, ["name"]),
    ({"name": "a/b"}, ["name"]),
    ({"name": "demo", "owner": "a\0b"}, ["owner"]),
    ({"name": "demo", "owner": "x" * 256}, ["owner"]),
    ({"name": "demo", "owner": "a\u2028b"}, ["owner"]),
    ({"name": "demo", "owner": "ev\u200bil"}, ["owner"]),
    ({"name": "demo", "owner": "a\U000e0041"}, ["owner"]),
    ({"name": "demo", "display_name": "x" * 256}, ["display_name"]),
    ({"name": "demo", "display_name": "a\tb"}, ["display_name"]),
    ({"name": "demo", "display_name": "a\x1b[31mb"}, ["display_name"]),
    ({"name": "demo", "prompt": "x" * 65_537}, ["prompt"]),
    ({"name": "demo", "prompt": "\u00e9" * 32_769}, ["prompt"]),
    ({"name": "demo", "labels": {"": "x"}}, ["labels"]),
    ({"name": "demo", "labels": {"Env": "prod"}}, ["labels"]),
    ({"name": "demo", "labels": {"env-": "prod"}}, ["labels"]),
    ({"name": "demo", "labels": {"/env": "prod"}}, ["labels"]),
    ({"name": "demo", "labels": {"env\n": "prod"}}, ["labels"]),
    ({"name": "demo", "labels": {"e\0v": "prod"}}, ["labels"]),
    ({"name": "demo", "labels": {"x" * 64: "prod"}}, ["labels"]),
    ({"name": "demo", "labels": {"\u00e9": "prod"}}, ["labels"]),
    ({"name": "demo", "labels": {"env": "x" * 256}}, ["labels"]),
    ({"name": "demo", "labels": {"env": "a\0b"}}, ["labels"]),
    ({"name": "demo", "labels": {"env": "a\nb"}}, ["labels"]),
    ({"name": "demo", "labels": {"env": "a\u2028b"}}, ["labels"]),
    ({"name": "demo", "labels": {f"l{n}": "" for n in range(65)}}, ["labels"]),
    ({"name": "demo", "request_id": "1"}, ["request_id"]),
    ({"name": "demo", "request_id": UUID.replace("-", "")}, ["request_id"]),
    ({"name": "demo", "request_id": f"urn:uuid:{UUID}"}, ["request_id"]),
    ({"name": "demo", "request_id": UUID + "\0"}, ["request_id"]),
    ({"name": "-", "owner": "\n", "display_name": "\n"}, ["name", "owner", "display_name"]),
]

START, STOP = types.BUILD_TRANSITION_START, types.BUILD_TRANSITION_STOP
RUNNING = types.JOB_STATUS_RUNNING
TASK = "local/demo"
OUTPUT = types.TASK_LOG_TYPE_OUTPUT

BAD_READS: list[tuple[logs_pb.GetTaskLogsRequest, list[str]]] = [
    (logs_pb.GetTaskLogsRequest(task=TASK, source=UNKNOWN_ENUM), ["source"]),
    (logs_pb.GetTaskLogsRequest(task=TASK, source=-1), ["source"]),  # type: ignore[arg-type]
    (logs_pb.GetTaskLogsRequest(task=TASK, tail=-1), ["tail"]),
    (logs_pb.GetTaskLogsRequest(task=TASK, page_size=-1), ["page_size"]),
    (logs_pb.GetTaskLogsRequest(task=TASK, epoch=0), ["epoch"]),
    (logs_pb.GetTaskLogsRequest(task=TASK, epoch=-1), ["epoch"]),
    (logs_pb.GetTaskLogsRequest(task=TASK, epoch=2), ["epoch"]),
    (logs_pb.GetTaskLogsRequest(task=TASK, epoch=2**31 - 1), ["epoch"]),
    (
        logs_pb.GetTaskLogsRequest(task=TASK, max_staleness=Duration(seconds=-1)),
        ["max_staleness"],
    ),
    (logs_pb.GetTaskLogsRequest(task=TASK, page_token="garbage"), ["page_token"]),
    (logs_pb.GetTaskLogsRequest(task=TASK, types=[UNKNOWN_ENUM]), ["types"]),
    (logs_pb.GetTaskLogsRequest(task=TASK, types=[types.TASK_LOG_TYPE_UNSPECIFIED]), ["types"]),
    (
        logs_pb.GetTaskLogsRequest(task=TASK, types=[OUTPUT, UNKNOWN_ENUM, NEGATIVE_ENUM]),
        ["types"] * 2,
    ),
    (logs_pb.GetTaskLogsRequest(task=TASK, types=[OUTPUT] * 17), ["types"]),
    (
        logs_pb.GetTaskLogsRequest(task="x", source=UNKNOWN_ENUM, tail=-1, page_size=-1, epoch=0),
        ["task", "source", "tail", "page_size", "epoch"],
    ),
]

BAD_BUILDS: list[tuple[pb.ReportBuildRequest, list[str]]] = [
    (
        pb.ReportBuildRequest(task=TASK, build_number=0, transition=START, job_status=RUNNING),
        ["build_number"],
    ),
    (
        pb.ReportBuildRequest(task=TASK, build_number=-1, transition=START, job_status=RUNNING),
        ["build_number"],
    ),
    (pb.ReportBuildRequest(task=TASK, build_number=1, job_status=RUNNING), ["transition"]),
    (pb.ReportBuildRequest(task=TASK, build_number=1, transition=START), ["job_status"]),
    (
        pb.ReportBuildRequest(
            task=TASK, build_number=1, transition=UNKNOWN_ENUM, job_status=UNKNOWN_ENUM
        ),
        ["transition", "job_status"],
    ),
    (pb.ReportBuildRequest(), ["task", "build_number", "transition", "job_status"]),
]

BAD_AGENTS: list[tuple[pb.ReportAgentRequest, list[str]]] = [
    (pb.ReportAgentRequest(task=TASK, build_number=1), ["lifecycle"]),
    (
        pb.ReportAgentRequest(task=TASK, build_number=0, lifecycle=types.AGENT_LIFECYCLE_READY),
        ["build_number"],
    ),
    (
        pb.ReportAgentRequest(
            task=TASK, build_number=1, lifecycle=UNKNOWN_ENUM, app_health=UNKNOWN_ENUM
        ),
        ["lifecycle", "app_health"],
    ),
]


BAD_UPDATES: list[tuple[pb.UpdateTaskRequest, list[str]]] = [
    (pb.UpdateTaskRequest(task=TASK, display_name="x" * 256), ["display_name"]),
    (pb.UpdateTaskRequest(task=TASK, display_name="a\0b"), ["display_name"]),
    (pb.UpdateTaskRequest(task=TASK, labels={"Env": "prod"}), ["labels"]),
    (pb.UpdateTaskRequest(task=TASK, labels={"env": "a\0b"}), ["labels"]),
    (pb.UpdateTaskRequest(task=TASK, update_mask=FieldMask(paths=["name"])), ["update_mask"]),
    (pb.UpdateTaskRequest(task=TASK, update_mask=FieldMask(paths=["labels.env"])), ["update_mask"]),
    (pb.UpdateTaskRequest(task=TASK, update_mask=FieldMask(paths=[""])), ["update_mask"]),
    (pb.UpdateTaskRequest(task=TASK, update_mask=FieldMask(paths=["*", "x"])), ["update_mask"]),
    (
        pb.UpdateTaskRequest(
            task="x",
            display_name="\n",
            labels={"": ""},
            update_mask=FieldMask(paths=["labels", "x", "display_name"]),
        ),
        ["task", "update_mask", "display_name", "labels"],
    ),
]


async def test_every_rpc_names_the_field_of_a_malformed_task(server: Server) -> None:
    for task in MALFORMED_TASKS:
        for call in _calls_that_name(server, task):
            refusal = await refused(call)

            assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT, task[:50]
            assert set(refusal.fields) == {"task"}, task[:50]


@pytest.mark.parametrize(("fields", "named"), BAD_CREATIONS, ids=lambda one: repr(one)[:40])
async def test_a_task_that_cannot_be_created_names_each_bad_field_and_stores_nothing(
    server: Server, fields: dict[str, Any], named: list[str]
) -> None:
    refusal = await refused(server.tasks.CreateTask(pb.CreateTaskRequest(**fields)))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == named
    assert not (await server.tasks.ListTasks(pb.ListTasksRequest())).tasks


async def test_values_just_within_the_limits_are_accepted(server: Server) -> None:
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    labels = {f"{n:02}" + "/" * 60 + "x": family * 51 for n in range(62)} | {"0": "", "a.b_c-d": ""}
    created = await server.create_task(
        "x" * 63,
        owner="a/b" * 85,
        display_name=family * 51,
        prompt="\0" * 65_536,
        labels=labels,
        request_id=UUID.upper(),
    )

    got = await server.tasks.GetTask(pb.GetTaskRequest(task="a/b" * 85 + "/" + "x" * 63))
    assert got == created.task
    assert got.prompt == "\0" * 65_536
    assert got.display_name == family * 51
    assert dict(got.labels) == labels


@pytest.mark.parametrize(("request_", "named"), BAD_READS, ids=lambda one: repr(one)[:60])
async def test_a_read_names_each_bad_field(
    server: Server, request_: logs_pb.GetTaskLogsRequest, named: list[str]
) -> None:
    await server.create_task()

    refusal = await refused(server.logs.GetTaskLogs(request_))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == named


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        ({"types": [UNKNOWN_ENUM]}, ["types"]),
        ({"types": [0]}, ["types"]),
        ({"types": [OUTPUT] * 17}, ["types"]),
        ({"types": [0], "tail": -1, "cursor": "garbage"}, ["tail", "tail", "types", "cursor"]),
    ],
    ids=lambda one: repr(one)[:60],
)
async def test_a_follow_names_each_bad_field(
    server: Server, request_: dict[str, Any], named: list[str]
) -> None:
    await server.create_task()
    call = server.logs.FollowTaskLogs(logs_pb.FollowTaskLogsRequest(task=TASK, **request_))

    refusal = await refused(call.read())

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == named


async def test_16_types_are_accepted(server: Server) -> None:
    await server.create_task()
    request = logs_pb.GetTaskLogsRequest(task=TASK, types=[OUTPUT] * 16)
    assert not (await server.logs.GetTaskLogs(request)).logs


@pytest.mark.parametrize(("request_", "named"), BAD_BUILDS, ids=lambda one: repr(one)[:60])
async def test_a_report_of_a_build_names_each_bad_field_and_changes_nothing(
    server: Server, request_: pb.ReportBuildRequest, named: list[str]
) -> None:
    before = (await server.create_task()).task

    refusal = await refused(server.tasks.ReportBuild(request_))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == named
    assert await server.tasks.GetTask(pb.GetTaskRequest(task=TASK)) == before


@pytest.mark.parametrize(("request_", "named"), BAD_AGENTS, ids=lambda one: repr(one)[:60])
async def test_a_report_of_an_agent_names_each_bad_field_and_changes_nothing(
    server: Server, request_: pb.ReportAgentRequest, named: list[str]
) -> None:
    await server.create_task()
    reported = await server.tasks.ReportBuild(
        pb.ReportBuildRequest(task=TASK, build_number=1, transition=START, job_status=RUNNING)
    )

    refusal = await refused(server.tasks.ReportAgent(request_))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == named
    assert await server.tasks.GetTask(pb.GetTaskRequest(task=TASK)) == reported.task


@pytest.mark.parametrize(("request_", "named"), BAD_UPDATES, ids=lambda one: repr(one)[:60])
async def test_an_update_names_each_bad_field_and_changes_nothing(
    server: Server, request_: pb.UpdateTaskRequest, named: list[str]
) -> None:
    before = (await server.create_task(display_name="Demo", labels={"env": "prod"})).task

    refusal = await refused(server.tasks.UpdateTask(request_))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == named
    assert await server.tasks.GetTask(pb.GetTaskRequest(task=TASK)) == before


async def test_a_message_about_labels_repeats_nothing_of_the_request(server: Server) -> None:
    labels = {"A secret": "a", "b": "a secret\n", "c": "a secret" * 100}

    created = await refused(server.create_task(labels=labels))
    listed = await refused(
        server.tasks.ListTasks(pb.ListTasksRequest(labels=["A secret", "b=a secret\0"]))
    )

    assert "secret" not in created.message + listed.message
    assert (created.fields, listed.fields) == (["labels"] * 3, ["labels"] * 2)


async def test_a_task_is_got_in_no_unknown_view(server: Server) -> None:
    await server.create_task()

    for request in (
        pb.GetTaskRequest(task=TASK, view=UNKNOWN_ENUM),
        pb.GetTaskRequest(task=TASK, view=-1),  # type: ignore[arg-type]
    ):
        assert (await refused(server.tasks.GetTask(request))).fields == ["view"]
    refusal = await refused(server.tasks.GetTask(pb.GetTaskRequest(task="x", view=UNKNOWN_ENUM)))
    assert refusal.fields == ["task", "view"]


@pytest.mark.parametrize(
    "request_",
    [
        pb.ListTasksRequest(page_size=-1),
        pb.ListTasksRequest(view=UNKNOWN_ENUM),
        pb.ListTasksRequest(labels=[""]),
        pb.ListTasksRequest(labels=["="]),
        pb.ListTasksRequest(labels=["=value"]),
        pb.ListTasksRequest(labels=["Env=prod"]),
        pb.ListTasksRequest(labels=["env =prod"]),
        pb.ListTasksRequest(labels=["env=" + "x" * 256]),
        pb.ListTasksRequest(labels=["env=a\0b"]),
        pb.ListTasksRequest(labels=["x" * 64]),
        pb.ListTasksRequest(labels=["env"] * 17),
        pb.ListTasksRequest(status=UNKNOWN_ENUM),
        pb.ListTasksRequest(owner="a\nb"),
        pb.ListTasksRequest(page_token="garbage"),
        pb.ListTasksRequest(page_token="\u00e9"),
    ],
    ids=lambda one: repr(one)[:40],
)
async def test_a_list_names_its_bad_field(server: Server, request_: pb.ListTasksRequest) -> None:
    refusal = await refused(server.tasks.ListTasks(request_))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == [request_.ListFields()[0][0].name]


@pytest.mark.parametrize(
    "method", ["TaskLogs/GetTaskLogs", "Tasks/CreateTask", "TaskAgents/UploadLogSnapshot"]
)
async def test_bytes_that_are_not_a_message_are_an_invalid_argument(
    server: Server, method: str
) -> None:
    raw: Any = server.channel
    token = (await server.create_task()).agent_token  # unauthenticated requests are not decoded

    refusal = await refused(
        raw.unary_unary(f"/tasklogs.v1.{method}")(
            GARBAGE, metadata=(("authorization", f"Bearer {token}"),)
        )
    )

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == ["request"]
    assert "DecodeError" not in refusal.message


async def test_text_that_is_not_utf_8_is_an_invalid_argument(server: Server) -> None:
    raw: Any = server.channel

    refusal = await refused(raw.unary_unary("/tasklogs.v1.Tasks/GetTask")(b"\x0a\x02\xc3\x28"))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_message_over_4_mib_is_over_the_limit(server: Server) -> None:
    prompt = "x" * (4 * 1024 * 1024)

    refusal = await refused(
        server.tasks.CreateTask(pb.CreateTaskRequest(name="demo", prompt=prompt))
    )

    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not (await server.tasks.ListTasks(pb.ListTasksRequest())).tasks


async def test_an_unknown_method_is_unimplemented(server: Server) -> None:
    raw: Any = server.channel

    refusal = await refused(raw.unary_unary("/tasklogs.v1.TaskLogs/Nothing")(b""))

    assert refusal.code is grpc.StatusCode.UNIMPLEMENTED


def _calls_that_name(server: Server, task: str) -> list[Awaitable[Any]]:
    build = pb.ReportBuildRequest(task=task, build_number=1, transition=START, job_status=RUNNING)
    ready = types.AGENT_LIFECYCLE_READY
    return [
        server.logs.GetTaskLogs(logs_pb.GetTaskLogsRequest(task=task)),
        server.tasks.GetTask(pb.GetTaskRequest(task=task)),
        server.tasks.DeleteTask(pb.DeleteTaskRequest(task=task)),
        server.tasks.DeleteTask(pb.DeleteTaskRequest(task=task, allow_missing=True)),
        server.tasks.UpdateTask(pb.UpdateTaskRequest(task=task, display_name="x")),
        server.tasks.RotateAgentToken(pb.RotateAgentTokenRequest(task=task)),
        server.tasks.ReportBuild(build),
        server.tasks.ReportAgent(pb.ReportAgentRequest(task=task, build_number=1, lifecycle=ready)),
    ]
