"""TaskLogsClient reads and operates tasks, against a scripted server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import UUID

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.rpc.error_details_pb2 import ErrorInfo

import tasklogs
from tasklogs import (
    AgentLifecycle,
    AppHealth,
    BuildTransition,
    JobStatus,
    LogSource,
    TaskLogsClient,
    TaskLogType,
    TaskStatus,
    TaskView,
    enums,
    errors,
)
from tasklogs.v1 import task_logs_pb2, tasks_pb2, types_pb2
from tests.cli.samples import CREATED_AT, SNAPSHOT_AT, TASK_ID, page, task
from tests.client.scripted_server import Refusal
from tests.support.fakes.log_server import HOLD, LogServer, entry, log_server

CREATED = datetime.fromtimestamp(CREATED_AT.seconds, UTC)
SNAPSHOT = datetime.fromtimestamp(SNAPSHOT_AT.seconds, UTC)
REFUSED = Refusal(grpc.StatusCode.UNAUTHENTICATED, "expired")


@pytest.fixture
async def server() -> AsyncIterator[LogServer]:
    async with log_server() as server:
        yield server


@pytest.fixture
async def client(server: LogServer) -> AsyncIterator[TaskLogsClient]:
    async with TaskLogsClient(server.address) as client:
        yield client


async def test_a_read_has_the_fields_of_its_first_page(
    server: LogServer, client: TaskLogsClient
) -> None:
    first = page(entry(0, "a", 1), snapshot=True)
    first.task_id = TASK_ID
    server.answers = [first]

    log = await client.get("local/demo")

    assert log.task_id == TASK_ID
    assert (log.snapshot, log.snapshot_at, log.status) == (True, SNAPSHOT, TaskStatus.PAUSED)
    assert (log.epoch, log.revision, log.first_id, log.cursor) == (1, 2, 0, "here")


async def test_an_entry_keeps_its_nanoseconds(server: LogServer, client: TaskLogsClient) -> None:
    server.answers = [page(entry(1, "a", 7, dropped_bytes=5))]

    (read,) = await (await client.get("local/demo")).all()

    assert read == tasklogs.LogEntry(
        id=1,
        type=TaskLogType.OUTPUT,
        content="a",
        time_ns=1_795_000_001_123_456_789,
        revision=7,
        dropped_bytes=5,
    )
    assert read.time == CREATED + timedelta(seconds=1, microseconds=123_456)


async def test_an_entry_has_its_names_and_any_type(
    server: LogServer, client: TaskLogsClient
) -> None:
    call = entry(1, "{}", 7)
    call.type = types_pb2.TASK_LOG_TYPE_TOOL_CALL
    call.source_id, call.name, call.call_id = "m1", "bash", "c1"
    later = entry(2, "", 8)
    later.type = 99  # type: ignore[assignment]
    server.answers = [page(call, later)]

    read, unknown = await (await client.get("local/demo")).all()

    assert (read.type, read.source_id, read.name, read.call_id) == (
        TaskLogType.TOOL_CALL,
        "m1",
        "bash",
        "c1",
    )
    assert (unknown.id, unknown.source_id, unknown.name, unknown.call_id) == (2, "", "", "")


async def test_nothing_stored_is_none_not_zero(server: LogServer, client: TaskLogsClient) -> None:
    server.answers = [task_logs_pb2.GetTaskLogsResponse(snapshot=True)]

    log = await client.get("local/demo")

    assert (log.snapshot_at, log.first_id, log.epoch) == (None, None, 0)


async def test_each_page_is_requested_when_it_is_needed(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.answers = [
        page(entry(0, "a", 1), next_page_token="2"),
        page(entry(1, "b", 2), next_page_token="3"),
        page(entry(2, "c", 3)),
    ]
    log = await client.get(
        "local/demo",
        source=LogSource.LIVE,
        tail=3,
        page_size=1,
        epoch=2,
        max_staleness=timedelta(seconds=1.5),
        types={TaskLogType.OUTPUT},
    )

    seen = []
    async for entries in log.pages():
        seen.append((len(server.requests), [each.content for each in entries]))

    assert seen == [(1, ["a"]), (2, ["b"]), (3, ["c"])]
    first = task_logs_pb2.GetTaskLogsRequest(
        task="local/demo",
        source=task_logs_pb2.LOG_SOURCE_LIVE,
        tail=3,
        page_size=1,
        epoch=2,
        max_staleness=Duration(seconds=1, nanos=500_000_000),
        types=[types_pb2.TASK_LOG_TYPE_OUTPUT],
    )
    tokens = []
    for request in server.requests:
        assert isinstance(request, task_logs_pb2.GetTaskLogsRequest)
        tokens.append(request.page_token)
        request.ClearField("page_token")
        assert request == first
    assert tokens == ["", "2", "3"]


async def test_a_log_is_iterated_once(server: LogServer, client: TaskLogsClient) -> None:
    server.answers = [page(entry(0, "a", 1))]
    log = await client.get("local/demo")
    await log.all()

    with pytest.raises(RuntimeError, match="already iterated"):
        await log.all()


async def test_a_call_ends_after_its_timeout(server: LogServer) -> None:
    async with TaskLogsClient("127.0.0.1:9", timeout=timedelta(seconds=5)) as nobody:
        with pytest.raises(errors.Unavailable):
            await nobody.get_task("local/demo")
    server.answers = [HOLD]
    async with TaskLogsClient(server.address, timeout=timedelta(milliseconds=50)) as client:
        with pytest.raises(errors.DeadlineExceeded):
            await client.get_task("local/demo")


async def test_a_token_goes_with_each_call(server: LogServer) -> None:
    server.answers = [task(), task()]
    async with TaskLogsClient(server.address, token="secret") as client:
        await client.get_task("local/demo")
    async with TaskLogsClient(server.address) as client:
        await client.get_task("local/demo")

    assert server.tokens == ["Bearer secret", None]


async def test_a_provider_is_asked_before_each_call_and_once_more_when_refused(
    server: LogServer,
) -> None:
    numbers = count(1)
    server.answers = [task(), REFUSED, task(), REFUSED, REFUSED]
    async with TaskLogsClient(server.address, token=lambda: f"t{next(numbers)}") as client:
        await client.get_task("local/demo")
        await client.get_task("local/demo")
        with pytest.raises(errors.Unauthenticated):
            await client.get_task("local/demo")

    assert server.tokens == [f"Bearer t{number}" for number in range(1, 6)]


async def test_a_fixed_token_that_is_refused_is_not_tried_again(server: LogServer) -> None:
    server.answers = [REFUSED]
    async with TaskLogsClient(server.address, token="old") as client:
        with pytest.raises(errors.Unauthenticated):
            await client.get_task("local/demo")


async def test_a_task_comes_whole(server: LogServer, client: TaskLogsClient) -> None:
    server.answers = [task(display_name="Demo")]

    found = await client.get_task("local/demo")

    assert (found.full_name, found.display_name, found.created_at) == (
        "local/demo",
        "Demo",
        CREATED,
    )
    assert found.status is TaskStatus.PAUSED
    assert found.status_detail.build == tasklogs.client.task.BuildFacts(
        number=2,
        transition=BuildTransition.STOP,
        job_status=JobStatus.SUCCEEDED,
        computed=TaskStatus.PAUSED,
    )
    assert found.status_detail.agent.lifecycle is AgentLifecycle.START_TIMEOUT
    assert found.status_detail.app.health is AppHealth.UNSPECIFIED
    assert found.log == tasklogs.client.task.LogSummary(
        epoch=2, entries=2, revision=9, bytes=12_345, snapshot_at=SNAPSHOT
    )
    assert found.agent_connected is False


async def test_creating_gives_the_task_and_the_token(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.answers = [tasks_pb2.CreateTaskResponse(task=task(), agent_token="tok")]

    created = await client.create_task(
        "demo",
        owner="local",
        display_name="Demo",
        prompt="Do it",
        standalone=True,
        labels={"env": "prod"},
        request_id="mine",
    )

    assert (created.task.name, created.agent_token) == ("demo", "tok")
    assert "tok" not in repr(created)
    assert server.requests == [
        tasks_pb2.CreateTaskRequest(
            name="demo",
            owner="local",
            display_name="Demo",
            prompt="Do it",
            standalone=True,
            labels={"env": "prod"},
            request_id="mine",
        )
    ]


BROKEN = Refusal(grpc.StatusCode.UNAVAILABLE, "connection reset")


async def test_creating_is_repeated_with_the_same_id(
    server: LogServer, client: TaskLogsClient
) -> None:
    created = tasks_pb2.CreateTaskResponse(task=task(), agent_token="tok")
    server.answers = [created, BROKEN, created]

    await client.create_task("demo")
    await client.create_task("demo")

    ids = []
    for request in server.requests:
        assert isinstance(request, tasks_pb2.CreateTaskRequest)
        ids.append(str(UUID(request.request_id)))
    assert ids[1] == ids[2] != ids[0]


async def test_a_prompt_that_was_not_asked_for_is_none(
    server: LogServer, client: TaskLogsClient
) -> None:
    page = tasks_pb2.ListTasksResponse(tasks=[task()])
    server.answers = [task(), task(), page, page]

    assert (await client.get_task("local/demo")).prompt == ""
    assert (await client.get_task("local/demo", view=TaskView.BASIC)).prompt is None
    assert [one.prompt async for one in client.list_tasks()] == [None]
    assert [one.prompt async for one in client.list_tasks(view=TaskView.FULL)] == [""]
    assert server.requests == [
        tasks_pb2.GetTaskRequest(task="local/demo", view=tasks_pb2.TASK_VIEW_FULL),
        tasks_pb2.GetTaskRequest(task="local/demo", view=tasks_pb2.TASK_VIEW_BASIC),
        tasks_pb2.ListTasksRequest(view=tasks_pb2.TASK_VIEW_BASIC),
        tasks_pb2.ListTasksRequest(view=tasks_pb2.TASK_VIEW_FULL),
    ]


async def test_an_update_names_what_it_changes(server: LogServer, client: TaskLogsClient) -> None:
    updated = task(display_name="Demo")
    updated.labels["env"] = "prod"
    updated.etag = "e2"
    server.answers = [updated] * 3

    changed = await client.update_task("a/b", display_name="", etag="e1")
    await client.update_task("a/b", labels={})
    await client.update_task("a/b", display_name="Demo", labels={"env": "prod"})

    assert (changed.labels, changed.etag, changed.prompt) == ({"env": "prod"}, "e2", "")
    assert hash(changed) == hash(changed)
    assert server.requests == [
        tasks_pb2.UpdateTaskRequest(
            task="a/b", update_mask=FieldMask(paths=["display_name"]), etag="e1"
        ),
        tasks_pb2.UpdateTaskRequest(task="a/b", update_mask=FieldMask(paths=["labels"])),
        tasks_pb2.UpdateTaskRequest(
            task="a/b",
            display_name="Demo",
            labels={"env": "prod"},
            update_mask=FieldMask(paths=["display_name", "labels"]),
        ),
    ]


async def test_an_update_of_a_task_that_has_changed_is_an_error_of_its_own(
    server: LogServer, client: TaskLogsClient
) -> None:
    reason = ErrorInfo(reason="ETAG_MISMATCH", domain="tasklogs.v1")
    server.answers = [Refusal(grpc.StatusCode.ABORTED, "changed", [reason])]

    with pytest.raises(errors.EtagMismatch):
        await client.update_task("a/b", display_name="x", etag="e1")


async def test_tasks_are_listed_page_by_page(server: LogServer, client: TaskLogsClient) -> None:
    server.answers = [
        tasks_pb2.ListTasksResponse(tasks=[task("a")], next_page_token="2"),
        tasks_pb2.ListTasksResponse(next_page_token="3"),
        tasks_pb2.ListTasksResponse(tasks=[task("b")]),
    ]

    listed = client.list_tasks(
        owner="local", status=TaskStatus.PAUSED, labels=["env=prod", "team"], page_size=1
    )

    assert (await anext(listed)).name == "a"
    assert len(server.requests) == 1
    assert [each.name async for each in listed] == ["b"]
    last = server.requests[-1]
    assert last == tasks_pb2.ListTasksRequest(
        owner="local",
        status=types_pb2.TASK_STATUS_PAUSED,
        labels=["env=prod", "team"],
        view=tasks_pb2.TASK_VIEW_BASIC,
        page_size=1,
        page_token="3",
    )


async def test_reports_send_their_arguments(server: LogServer, client: TaskLogsClient) -> None:
    server.answers = [
        tasks_pb2.ReportBuildResponse(task=task()),
        tasks_pb2.ReportAgentResponse(task=task()),
        tasks_pb2.RotateAgentTokenResponse(agent_token="new"),
        tasks_pb2.DeleteTaskResponse(),
        tasks_pb2.DeleteTaskResponse(),
    ]

    reported = [
        await client.report_build("local/demo", 2, BuildTransition.STOP, JobStatus.RUNNING),
        await client.report_agent("local/demo", 2, lifecycle=AgentLifecycle.READY),
    ]
    assert [(one.name, one.prompt) for one in reported] == [("demo", None)] * 2
    assert await client.rotate_agent_token("local/demo") == "new"
    await client.delete_task("local/demo")
    await client.delete_task("local/demo", allow_missing=True)

    assert server.requests == [
        tasks_pb2.ReportBuildRequest(
            task="local/demo",
            build_number=2,
            transition=types_pb2.BUILD_TRANSITION_STOP,
            job_status=types_pb2.JOB_STATUS_RUNNING,
        ),
        tasks_pb2.ReportAgentRequest(
            task="local/demo", build_number=2, lifecycle=types_pb2.AGENT_LIFECYCLE_READY
        ),
        tasks_pb2.RotateAgentTokenRequest(task="local/demo"),
        tasks_pb2.DeleteTaskRequest(task="local/demo"),
        tasks_pb2.DeleteTaskRequest(task="local/demo", allow_missing=True),
    ]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (enums.TaskStatus, types_pb2.TaskStatus),
        (enums.BuildTransition, types_pb2.BuildTransition),
        (enums.JobStatus, types_pb2.JobStatus),
        (enums.AgentLifecycle, types_pb2.AgentLifecycle),
        (enums.AppHealth, types_pb2.AppHealth),
        (enums.TaskLogType, types_pb2.TaskLogType),
        (enums.LogSource, task_logs_pb2.LogSource),
        (enums.TaskView, tasks_pb2.TaskView),
    ],
)
def test_the_enums_are_those_of_the_api(
    ours: type[enums.TaskStatus], theirs: EnumTypeWrapper
) -> None:
    descriptor = theirs.DESCRIPTOR
    prefix = descriptor.values[0].name.removesuffix("UNSPECIFIED")

    assert {f"{prefix}{each.name}": each.value for each in ours} == dict(theirs.items())


def test_everything_that_is_exported_is_there() -> None:
    for name in tasklogs.__all__:
        assert hasattr(tasklogs, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tasklogs.nothing
