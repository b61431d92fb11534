"""A client of tomorrow at our server: it ignores unknown fields and refuses unknown values."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from tasklogs.v1 import task_logs_pb2, tasks_pb2, types_pb2
from tests.compat import tomorrow
from tests.compat.agent_peer import conversation
from tests.support.fixtures.agent_stream import ScriptedAgent
from tests.support.fixtures.refusals import Refusal, refused
from tests.support.fixtures.server import Server

M = TypeVar("M", bound=Message)
NEW = tomorrow.NEW_NUMBER
SNAPSHOT = task_logs_pb2.LOG_SOURCE_SNAPSHOT
CONTENTS = ["zero", "one", "two", "three", "four"]
OUTPUTS = ["one", "three"]


@pytest.fixture
async def served(server: Server) -> Server:
    """A server with a log of five entries."""
    made = await server.create_task(standalone=True)
    async with ScriptedAgent.connect(server, made.agent_token) as agent:
        first = conversation(*CONTENTS)
        await agent.append(first.entries, open_epoch=True)
        await agent.acked()
        await agent.goodbye()
    return server


def grown(message: M) -> M:
    """Return `message` with the new field in each of its messages."""
    return tomorrow.as_today(tomorrow.grown(message), type(message))


def read(**fields: Any) -> task_logs_pb2.GetTaskLogsRequest:
    return task_logs_pb2.GetTaskLogsRequest(task="local/demo", source=SNAPSHOT, **fields)


async def test_unknown_fields_of_requests_are_ignored(served: Server) -> None:
    logs, tasks = served.logs, served.tasks
    whole = await logs.GetTaskLogs(grown(read()))
    assert [entry.content for entry in whole.logs] == CONTENTS

    made = await tasks.CreateTask(grown(tasks_pb2.CreateTaskRequest(name="other")))
    assert made.task.name == "other"
    got = await tasks.GetTask(grown(tasks_pb2.GetTaskRequest(task="local/other")))
    assert got.id == made.task.id
    report = tasks_pb2.ReportBuildRequest(
        task="local/other",
        build_number=1,
        transition=types_pb2.BUILD_TRANSITION_START,
        job_status=types_pb2.JOB_STATUS_RUNNING,
    )
    reported = await tasks.ReportBuild(grown(report))
    assert reported.task.status_detail.build.number == 1
    await tasks.RotateAgentToken(grown(tasks_pb2.RotateAgentTokenRequest(task="local/other")))
    await tasks.DeleteTask(grown(tasks_pb2.DeleteTaskRequest(task="local/other")))
    listed = await tasks.ListTasks(grown(tasks_pb2.ListTasksRequest()))
    assert [task.name for task in listed.tasks] == ["demo"]


async def test_a_follow_with_unknown_fields_brings_everything(served: Server) -> None:
    request = grown(task_logs_pb2.FollowTaskLogsRequest(task="local/demo", source=SNAPSHOT))
    seen: list[str] = []
    async for message in served.logs.FollowTaskLogs(request):
        seen += [entry.content for entry in message.entries.logs]
        if message.HasField("caught_up"):
            break
    assert seen == CONTENTS


@pytest.mark.parametrize(
    "make", [read, grown_read := lambda **f: grown(read(**f))], ids=["today", "tomorrow"]
)
async def test_pages_have_every_entry_once(
    served: Server, make: Callable[..., task_logs_pb2.GetTaskLogsRequest]
) -> None:
    seen: list[str] = []
    token = ""
    while True:
        page = await served.logs.GetTaskLogs(make(page_size=2, page_token=token))
        seen += [entry.content for entry in page.logs]
        if not (token := page.next_page_token):
            break
    assert seen == CONTENTS


async def test_a_page_token_is_bound_to_fields_that_the_server_does_not_know(
    served: Server,
) -> None:
    """They might select other entries: with them, the token would mean another range."""
    of_today = (await served.logs.GetTaskLogs(read(page_size=2))).next_page_token
    of_tomorrow = (await served.logs.GetTaskLogs(grown(read(page_size=2)))).next_page_token
    other = tomorrow.make("GetTaskLogsRequest", tomorrow="another value")
    other.MergeFromString(read(page_size=2, page_token=of_tomorrow).SerializeToString())

    for request in (
        grown(read(page_size=2, page_token=of_today)),
        read(page_size=2, page_token=of_tomorrow),
        tomorrow.as_today(other, task_logs_pb2.GetTaskLogsRequest),
    ):
        refusal = await refused(served.logs.GetTaskLogs(request))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert refusal.fields == ["page_token"]


async def test_a_page_token_of_a_list_is_bound_to_fields_that_the_server_does_not_know(
    served: Server,
) -> None:
    await served.create_task("second")
    request = tasks_pb2.ListTasksRequest(page_size=1)
    token = (await served.tasks.ListTasks(grown(request))).next_page_token
    assert token
    request.page_token = token
    refusal = await refused(served.tasks.ListTasks(request))
    assert refusal.fields == ["page_token"]
    rest = await served.tasks.ListTasks(grown(request))
    assert [task.name for task in rest.tasks] == ["demo"]


def names(refusal: Refusal, field: str) -> bool:
    """Whether the request was refused because of this field."""
    bare = [re.sub(r"\[\d+\]$", "", one) for one in refusal.fields]
    return refusal.code is grpc.StatusCode.INVALID_ARGUMENT and bare == [field]


async def test_an_unknown_source_is_refused_by_name(served: Server) -> None:
    for source in (3, NEW):
        number = task_logs_pb2.LogSource.ValueType(source)
        request = task_logs_pb2.GetTaskLogsRequest(task="local/demo", source=number)
        assert names(await refused(served.logs.GetTaskLogs(request)), "source")
        follow = task_logs_pb2.FollowTaskLogsRequest(task="local/demo", source=number)
        assert names(await refused(first_of(served.logs.FollowTaskLogs(follow))), "source")


async def first_of(call: Any) -> Any:
    return await call.read()


@pytest.mark.parametrize("type_", [7, NEW])
async def test_an_unknown_type_never_selects_everything(served: Server, type_: int) -> None:
    """The server refuses it by name, or has no entries of it. It is not as if none were given."""
    output, unknown = (types_pb2.TaskLogType.ValueType(one) for one in (2, type_))
    for types, may_have in (([unknown], []), ([output, unknown], OUTPUTS)):
        try:
            page = await served.logs.GetTaskLogs(read(types=types))
        except grpc.aio.AioRpcError:
            assert names(await refused(served.logs.GetTaskLogs(read(types=types))), "types")
            continue
        assert [entry.content for entry in page.logs] == may_have


@pytest.mark.parametrize("type_", [7, NEW])
async def test_a_follow_of_an_unknown_type_never_selects_everything(
    served: Server, type_: int
) -> None:
    unknown = types_pb2.TaskLogType.ValueType(type_)
    request = task_logs_pb2.FollowTaskLogsRequest(
        task="local/demo", source=SNAPSHOT, types=[unknown]
    )
    seen: list[str] = []
    try:
        async for message in served.logs.FollowTaskLogs(request):
            seen += [entry.content for entry in message.entries.logs]
            if message.HasField("caught_up"):
                break
    except grpc.aio.AioRpcError:
        assert names(await refused(first_of(served.logs.FollowTaskLogs(request))), "types")
    assert seen == []


async def test_an_unknown_view_is_refused_by_name(served: Server) -> None:
    view = tasks_pb2.TaskView.ValueType(NEW)
    get = tasks_pb2.GetTaskRequest(task="local/demo", view=view)
    assert names(await refused(served.tasks.GetTask(get)), "view")
    assert names(
        await refused(served.tasks.ListTasks(tasks_pb2.ListTasksRequest(view=view))), "view"
    )


async def test_an_unknown_status_to_list_is_refused_by_name(served: Server) -> None:
    status = types_pb2.TaskStatus.ValueType(NEW)
    request = tasks_pb2.ListTasksRequest(status=status)
    assert names(await refused(served.tasks.ListTasks(request)), "status")


@pytest.mark.parametrize("field", ["transition", "job_status"])
async def test_an_unknown_value_in_a_report_is_refused_by_name(served: Server, field: str) -> None:
    made = await served.create_task("orchestrated")
    report = tasks_pb2.ReportBuildRequest(
        task=made.task.id,
        build_number=1,
        transition=types_pb2.BUILD_TRANSITION_START,
        job_status=types_pb2.JOB_STATUS_RUNNING,
    )
    setattr(report, field, NEW)
    assert names(await refused(served.tasks.ReportBuild(report)), field)
    task = await served.tasks.GetTask(tasks_pb2.GetTaskRequest(task=made.task.id))
    assert task.status_detail.build.number == 0


@pytest.mark.parametrize(
    "paths", [["prompt_of_tomorrow"], ["display_name", "tomorrow"], ["labels.a.b"]]
)
async def test_an_unknown_path_of_a_mask_is_refused_and_nothing_changes(
    served: Server, paths: list[str]
) -> None:
    request = tasks_pb2.UpdateTaskRequest(
        task="local/demo", display_name="changed", update_mask=FieldMask(paths=paths)
    )
    assert names(await refused(served.tasks.UpdateTask(request)), "update_mask")
    task = await served.tasks.GetTask(tasks_pb2.GetTaskRequest(task="local/demo"))
    assert task.display_name == ""


@pytest.mark.parametrize(
    "method",
    [
        "/tasklogs.v1.TaskLogs/SearchTaskLogs",
        "/tasklogs.v1.Tasks/ArchiveTask",
        "/tasklogs.v2.TaskLogs/GetTaskLogs",
    ],
)
async def test_an_unknown_method_is_unimplemented_with_a_reason(
    served: Server, method: str
) -> None:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = served.channel.unary_unary(method)
    refusal = await refused(call(b""))
    assert refusal.code is grpc.StatusCode.UNIMPLEMENTED
    assert refusal.reason
