"""FollowTaskLogs over a socket: one call through the life of a task, refusals, and ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import tasks_pb2
from tasklogs.v1 import types_pb2 as types
from tasklogs_server import app
from tasklogs_server.domain.status import TaskStatus
from tasklogs_server.reads.tokens import Cursor, PageToken
from tasklogs_server.settings import ServerSettings
from tests.reads.follow_reader import Reader, reading
from tests.reads.follow_view import View
from tests.support.fixtures.agent_stream import (
    GOODBYE_PAUSING,
    ScriptedAgent,
    log_entry,
    tail_delta,
)
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.server import MakeServer, Server

START, STOP = types.BUILD_TRANSITION_START, types.BUILD_TRANSITION_STOP


@asynccontextmanager
async def following(
    server: Server, view: View | None = None, **request: Any
) -> AsyncIterator[Reader]:
    call = server.logs.FollowTaskLogs(pb.FollowTaskLogsRequest(task="local/demo", **request))
    try:
        async with reading(aiter(call), view) as reader:
            yield reader
    finally:
        call.cancel()


async def report(
    server: Server,
    build: int,
    transition: types.BuildTransition.ValueType,
    status: types.JobStatus.ValueType = types.JOB_STATUS_SUCCEEDED,
) -> None:
    await server.tasks.ReportBuild(
        tasks_pb2.ReportBuildRequest(
            task="local/demo", build_number=build, transition=transition, job_status=status
        )
    )


async def refusal(server: Server, **request: Any) -> tuple[grpc.StatusCode, dict[str, Message]]:
    """Follow. Returns the refusal."""
    async with following(server, **request) as reader:
        return refused(await reader.end())


def refused(error: Exception | None) -> tuple[grpc.StatusCode, dict[str, Message]]:
    assert isinstance(error, grpc.aio.AioRpcError), error
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    details: dict[str, Message] = {}
    for packed in status.details if status is not None else ():
        kind = getattr(error_details_pb2, packed.TypeName().rpartition(".")[2])()
        packed.Unpack(kind)
        details[kind.DESCRIPTOR.name] = kind
    # No two calls have the same.
    assert details.pop("RequestInfo").request_id  # type: ignore[attr-defined]
    return error.code(), details


def reason(details: dict[str, Message]) -> str:
    info = details["ErrorInfo"]
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert info.domain == "tasklogs.v1"
    return str(info.reason)


async def test_one_call_sees_a_task_from_before_its_first_build_through_pause_and_resume(
    server: Server,
) -> None:
    made = await server.create_task()
    async with following(server, deltas=True) as reader:
        await reader.heard("caught_up")
        await report(server, 1, START)
        await reader.heard("status", 2)
        async with ScriptedAgent.connect(server, made.agent_token) as agent:
            agent.answer_syncs()
            await agent.report()
            await reader.until(lambda: types.TASK_STATUS_ACTIVE in reader.view.statuses)
            await agent.append([log_entry(0, "hi"), log_entry(1, "")], open_epoch=True)
            await agent.acked()
            await reader.until(lambda: (1, 1) in reader.view.entries)
            for index in range(5):
                await agent.append(tail=tail_delta(1, index, "x"))
                await agent.acked()
            await reader.until(lambda: reader.view.contents()[1, 1] == "xxxxx")
            assert reader.view.deltas >= 1
            await agent.goodbye(GOODBYE_PAUSING)
        await report(server, 2, STOP)
        await reader.until(lambda: types.TASK_STATUS_PAUSED in reader.view.statuses)
        await report(server, 3, START)
        async with ScriptedAgent.connect(server, made.agent_token) as agent:
            await agent.report()
            await agent.append([log_entry(2, "again")])
            await reader.until(lambda: (1, 2) in reader.view.entries)
            await reader.until(lambda: reader.view.statuses[-1] == types.TASK_STATUS_ACTIVE)
    seen = [
        one
        for index, one in enumerate(reader.view.statuses)
        if index == 0 or reader.view.statuses[index - 1] != one
    ]
    assert seen == [
        types.TASK_STATUS_PENDING,
        types.TASK_STATUS_INITIALIZING,
        types.TASK_STATUS_ACTIVE,
        types.TASK_STATUS_PAUSED,
        types.TASK_STATUS_INITIALIZING,
        types.TASK_STATUS_ACTIVE,
    ]
    assert reader.view.contents() == {(1, 0): "hi", (1, 1): "xxxxx", (1, 2): "again"}
    assert reader.events.count("caught_up") == 1


async def test_the_status_comes_with_the_facts_it_was_derived_from(server: Server) -> None:
    await server.create_task()
    await report(server, 7, START, types.JOB_STATUS_RUNNING)
    async with following(server) as reader:
        await reader.heard("status")
        detail = reader.messages[0].status.status_detail
        assert detail.build.number == 7
        assert detail.build.job_status == types.JOB_STATUS_RUNNING
        assert detail.agent.computed == types.TASK_STATUS_INITIALIZING


async def test_caught_up_of_an_active_task_means_all_that_its_app_shows(server: Server) -> None:
    made = await server.create_task()
    await report(server, 1, START)
    async with ScriptedAgent.connect(server, made.agent_token) as agent:
        await agent.report()
        asked = 0

        async def answer(sync: Any) -> None:
            nonlocal asked
            asked += 1
            if asked == 1:
                await agent.sync_failed(sync.id, "bad gateway")
                return
            await agent.append([log_entry(0, "shown")], open_epoch=True)
            await agent.sync_done(sync.id)

        agent.answer_syncs(answer)
        async with following(server, source=pb.LOG_SOURCE_SNAPSHOT) as waits:
            await waits.until(lambda: types.TASK_STATUS_ACTIVE in waits.view.statuses)
        async with following(server) as reader:
            await reader.heard("caught_up")
            assert reader.view.contents() == {(1, 0): "shown"}
            assert asked == 2


@pytest.mark.parametrize(
    ("job", "source", "status"),
    [
        (types.JOB_STATUS_FAILED, pb.LOG_SOURCE_UNSPECIFIED, "TASK_STATUS_ERROR"),
        (types.JOB_STATUS_FAILED, pb.LOG_SOURCE_LIVE, "TASK_STATUS_ERROR"),
        (types.JOB_STATUS_PENDING, pb.LOG_SOURCE_LIVE, "TASK_STATUS_PENDING"),
    ],
)
async def test_a_status_that_refuses_a_read_refuses_a_follow_with_the_same_details(
    server: Server, job: types.JobStatus.ValueType, source: pb.LogSource.ValueType, status: str
) -> None:
    await server.create_task()
    await report(server, 1, START, job)
    code, details = await refusal(server, source=source)
    assert (code, reason(details)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "TASK_STATE_CONFLICT",
    )
    with pytest.raises(grpc.aio.AioRpcError) as read:
        await server.logs.GetTaskLogs(pb.GetTaskLogsRequest(task="local/demo", source=source))
    assert refused(read.value) == (code, details)
    assert dict(details["ErrorInfo"].metadata)["status"] == status  # type: ignore[attr-defined]


async def test_a_follow_of_a_paused_task_is_served_from_the_store(server: Server) -> None:
    await server.create_task()
    await report(server, 1, STOP)
    code, _ = await refusal(server, source=pb.LOG_SOURCE_LIVE)
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    for source in (pb.LOG_SOURCE_UNSPECIFIED, pb.LOG_SOURCE_SNAPSHOT):
        async with following(server, source=source) as reader:
            await reader.heard("caught_up")


async def test_the_end_of_a_standalone_tasks_lease_arrives_as_a_status(
    make_server: MakeServer,
) -> None:
    async with make_server(lease=timedelta(seconds=1)) as server:
        made = await server.create_task(standalone=True)
        async with following(server, source=pb.LOG_SOURCE_SNAPSHOT) as reader:
            async with ScriptedAgent.connect(server, made.agent_token) as agent:
                await agent.report()
                await reader.until(lambda: types.TASK_STATUS_ACTIVE in reader.view.statuses)
            await reader.until(lambda: reader.view.statuses[-1] == types.TASK_STATUS_UNKNOWN)
            assert not reader.ended


async def test_a_follow_continues_from_the_cursor_of_a_read(server: Server) -> None:
    made = await server.create_task()
    async with ScriptedAgent.connect(server, made.agent_token) as agent:
        await agent.append([log_entry(0, "a"), log_entry(1, "b")], open_epoch=True)
        await agent.acked()
        read = await server.logs.GetTaskLogs(
            pb.GetTaskLogsRequest(task="local/demo", source=pb.LOG_SOURCE_SNAPSHOT)
        )
        async with following(server, cursor=read.cursor) as reader:
            await reader.heard("caught_up")
            assert reader.events == ["status", "caught_up"]
            await agent.append(tail=tail_delta(1, 1, "!"))
            await agent.append([log_entry(2, "c")])
            await reader.until(lambda: (1, 2) in reader.view.entries)
            assert reader.view.contents() == {(1, 1): "b!", (1, 2): "c"}


async def test_cursors_that_do_not_belong_to_the_task_are_invalid_arguments(server: Server) -> None:
    await server.create_task()
    await server.create_task("other")
    read = await server.logs.GetTaskLogs(pb.GetTaskLogsRequest(task="local/demo"))
    page_token = PageToken(
        task_id=Cursor.decode(read.cursor).task_id,
        epoch=1,
        start=0,
        end=1,
        revision=0,
        snapshot=True,
        snapshot_at=None,
        status=TaskStatus.PENDING,
        fingerprint=bytes(8),
    ).encode()
    others = Cursor.decode(
        (await server.logs.GetTaskLogs(pb.GetTaskLogsRequest(task="local/other"))).cursor
    )
    own = Cursor.decode(read.cursor)
    for cursor in (
        "garbage",
        "ünïcode",
        read.cursor[:-1],
        read.cursor[1:],
        read.cursor.swapcase(),
        page_token,
        others.encode(),
        Cursor(own.task_id, -1).encode(),
    ):
        code, details = await refusal(server, cursor=cursor)
        assert code is grpc.StatusCode.INVALID_ARGUMENT, cursor
        violations = details["BadRequest"].field_violations  # type: ignore[attr-defined]
        assert [one.field for one in violations] == ["cursor"]


async def test_a_cursor_that_is_newer_than_a_restored_backup_is_expired(
    server: Server,
) -> None:
    made = await server.create_task()
    async with ScriptedAgent.connect(server, made.agent_token) as agent:
        await agent.append([log_entry(0, "a")], open_epoch=True)
        await agent.acked()
    read = await server.logs.GetTaskLogs(pb.GetTaskLogsRequest(task="local/demo"))
    future = Cursor(Cursor.decode(read.cursor).task_id, 3).encode()
    code, details = await refusal(server, cursor=future)
    assert (code, reason(details)) == (grpc.StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED")
    oldest = dict(details["ErrorInfo"].metadata)["oldest_cursor"]  # type: ignore[attr-defined]
    async with following(server, cursor=oldest) as reader:
        await reader.heard("caught_up")
        assert reader.view.contents() == {(1, 0): "a"}


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"tail": -1}, "tail"),
        ({"tail": 1, "cursor": "that of a read"}, "tail"),
        ({"source": 9}, "source"),
        ({"task": "Not A Name"}, "task"),
    ],
)
async def test_bad_fields_are_named(server: Server, request_: dict[str, Any], field: str) -> None:
    await server.create_task()
    if "cursor" in request_:
        read = await server.logs.GetTaskLogs(pb.GetTaskLogsRequest(task="local/demo"))
        request_ = {**request_, "cursor": read.cursor}
    asked = {"task": "local/demo", **request_}
    with pytest.raises(grpc.aio.AioRpcError) as error:
        async for _ in server.logs.FollowTaskLogs(pb.FollowTaskLogsRequest(**asked)):
            pass
    code, details = refused(error.value)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    violations = details["BadRequest"].field_violations  # type: ignore[attr-defined]
    assert [one.field for one in violations] == [field]


async def test_an_unknown_task_is_not_found(server: Server) -> None:
    code, details = await refusal(server)
    assert (code, reason(details)) == (grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")


async def test_a_deleted_task_ends_its_follows_with_not_found(server: Server) -> None:
    await server.create_task()
    async with following(server) as reader:
        await reader.heard("caught_up")
        await server.tasks.DeleteTask(tasks_pb2.DeleteTaskRequest(task="local/demo"))
        code, details = refused(await reader.end())
        assert (code, reason(details)) == (grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")


async def test_a_drain_ends_follows_and_says_when_to_retry(
    database: str,
) -> None:
    settings = ServerSettings.model_validate(
        {"listen": "127.0.0.1:0", "drain_timeout": timedelta(seconds=1)}
    )
    async with (
        app.run(settings, database) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        server = Server(running.address, database, channel)
        await server.create_task()
        async with following(server) as reader:
            await reader.heard("caught_up")
            draining = asyncio.create_task(running.drain())
            code, details = refused(await reader.end())
            await draining
        assert (code, reason(details)) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert "RetryInfo" in details


async def test_a_server_stops_although_a_follow_is_not_read(
    database: str,
) -> None:
    settings = ServerSettings.model_validate({"listen": "127.0.0.1:0"})
    async with asyncio.timeout(DEADLINE_SECONDS), AsyncExitStack() as stack:
        running = await stack.enter_async_context(app.run(settings, database))
        channel = grpc.aio.insecure_channel(running.address)  # stays open when the server stops
        server = Server(running.address, database, channel)
        made = await server.create_task()
        async with ScriptedAgent.connect(server, made.agent_token) as agent:
            for index in range(30):
                entry = log_entry(index, "x" * 900_000)
                await agent.append([entry], open_epoch=index == 0)
                await agent.acked()
        call = server.logs.FollowTaskLogs(
            pb.FollowTaskLogsRequest(task="local/demo", source=pb.LOG_SOURCE_SNAPSHOT)
        )
        await call.read()  # the status; nothing else is read
        await stack.aclose()
        await channel.close()


async def test_a_follow_whose_caller_leaves_leaves_nothing_behind(server: Server) -> None:
    """They cancel, run out of time, or lose their connection. The server runs in this loop too."""
    await server.create_task()
    before = asyncio.all_tasks()
    for index in range(10):
        async with following(server) as reader:
            if index % 2:
                await reader.heard("caught_up")
    late = server.logs.FollowTaskLogs(pb.FollowTaskLogsRequest(task="local/demo"), timeout=0.3)
    async with reading(aiter(late)) as reader:
        error = await reader.end()
        # The call ends at the caller's own deadline, with or without the server's status.
        assert isinstance(error, grpc.aio.AioRpcError)
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    async with grpc.aio.insecure_channel(server.address) as channel:
        gone = Server(server.address, server.dsn, channel).logs.FollowTaskLogs(
            pb.FollowTaskLogsRequest(task="local/demo")
        )
        await gone.read()
    async with asyncio.timeout(DEADLINE_SECONDS):
        while left := [one for one in asyncio.all_tasks() - before if _is_of_a_follow(one)]:
            await asyncio.wait(left)


def _is_of_a_follow(task: asyncio.Task[Any]) -> bool:
    names = ("feed ", "follow ", "shared ", "HandleExceptions[/tasklogs.v1.TaskLogs/Follow")
    return task.get_name().startswith(names)


@pytest.mark.parametrize(
    "interval",
    [
        Duration(),
        Duration(nanos=999_999_999),
        Duration(seconds=-1),
        Duration(seconds=3600, nanos=1),
        Duration(seconds=315_576_000_001),
        Duration(seconds=5, nanos=-1),
    ],
    ids=str,
)
async def test_a_progress_interval_out_of_its_range_is_refused_and_named(
    server: Server, interval: Duration
) -> None:
    await server.create_task()
    code, details = await refusal(server, progress_interval=interval)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    bad_request = details["BadRequest"]
    assert isinstance(bad_request, error_details_pb2.BadRequest)
    assert [one.field for one in bad_request.field_violations] == ["progress_interval"]


async def test_the_shortest_progress_interval_is_a_second(server: Server) -> None:
    await server.create_task()
    longest = Duration(seconds=3600)
    async with following(server, progress_interval=longest) as slow:
        async with following(server, progress_interval=Duration(seconds=1)) as fast:
            await fast.heard("progress", 2)
        assert slow.events == ["status", "caught_up"]


async def test_a_read_and_the_first_message_of_a_follow_have_the_tasks_uuid(
    server: Server,
) -> None:
    task_id = (await server.create_task()).task.id
    read = await server.logs.GetTaskLogs(pb.GetTaskLogsRequest(task="local/demo"))
    assert read.task_id == task_id
    async with following(server) as reader:
        await reader.heard("caught_up")
        assert reader.messages[0].status.task_id == task_id

    await server.tasks.DeleteTask(tasks_pb2.DeleteTaskRequest(task="local/demo"))
    other_id = (await server.create_task()).task.id
    read = await server.logs.GetTaskLogs(pb.GetTaskLogsRequest(task="local/demo"))
    assert read.task_id == other_id != task_id
