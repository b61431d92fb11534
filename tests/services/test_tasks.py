"""Tasks: create, read, delete, report, rotate the token."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import asyncpg
import grpc
import pytest

from tasklogs.errors import TaskLogsRpcError
from tasklogs.v1 import task_logs_pb2 as logs_pb
from tasklogs.v1 import tasks_pb2 as pb
from tasklogs.v1 import types_pb2 as types
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.conditions import until
from tests.support.fixtures.refusals import Refusal, refused
from tests.support.fixtures.reports import (
    READY,
    START,
    STOP,
    TASK,
    get_task,
    make_active,
    report_agent,
    report_build,
)
from tests.support.fixtures.server import Server

NOBODY = "6b1f5a3e-8a53-4c1b-9df3-0123456789ab"


async def test_a_new_task_is_pending_and_has_every_field_set(
    server: Server,
) -> None:
    created = await server.create_task(display_name="A demo", prompt="do it")
    task = created.task

    assert (task.owner, task.name, task.display_name, task.prompt) == (
        "local",
        "demo",
        "A demo",
        "do it",
    )
    assert task.status == types.TASK_STATUS_PENDING
    assert task.HasField("agent_connected")
    assert not task.agent_connected
    assert task.HasField("created_at")
    assert (task.log.epoch, task.log.entries, task.log.revision, task.log.bytes) == (0, 0, 0, 0)
    assert not task.log.HasField("snapshot_at")
    assert created.agent_token.startswith("tla_")


async def test_a_task_is_read_by_uuid_in_any_case_and_by_owner_and_name(server: Server) -> None:
    task = (await server.create_task(owner="team/a")).task

    for ref in (task.id, task.id.upper(), "team/a/demo"):
        assert await get_task(server, ref) == task


async def test_a_task_is_got_whole_or_without_its_prompt(server: Server) -> None:
    task = (await server.create_task(prompt="do it", labels={"env": "prod"})).task
    without_prompt = pb.Task()
    without_prompt.CopyFrom(task)
    without_prompt.prompt = ""

    for view, shown in (
        (pb.TASK_VIEW_UNSPECIFIED, task),
        (pb.TASK_VIEW_FULL, task),
        (pb.TASK_VIEW_BASIC, without_prompt),
    ):
        assert await server.tasks.GetTask(pb.GetTaskRequest(task=TASK, view=view)) == shown


async def test_a_report_is_answered_without_the_prompt(server: Server) -> None:
    await server.create_task(prompt="x" * 65_536, labels={"env": "prod"})

    for task in (await report_build(server), await report_agent(server)):
        assert (task.prompt, dict(task.labels)) == ("", {"env": "prod"})
        assert task.ByteSize() < 500


async def test_the_token_is_shown_once(server: Server) -> None:
    token = (await server.create_task()).agent_token

    listed = await server.tasks.ListTasks(pb.ListTasksRequest())

    assert token not in str(listed)
    assert token not in str(await get_task(server))


async def test_a_name_is_unique_per_owner(server: Server) -> None:
    await server.create_task()

    refusal = await refused(server.create_task())
    assert refusal.code is grpc.StatusCode.ALREADY_EXISTS
    assert refusal.reason == "TASK_NAME_TAKEN"
    assert "local/demo" in refusal.message

    await server.create_task(owner="someone-else")


async def test_a_task_whose_owner_has_hidden_characters_stays_readable(server: Server) -> None:
    """An earlier version created such tasks. A new one is refused."""
    task = (await server.create_task()).task
    connection = await asyncpg.connect(server.dsn)
    try:
        for table in ("tasks", "task_names"):
            await connection.execute(f"UPDATE {table} SET owner = $1", "ev\u200bil")
    finally:
        await connection.close()

    for name in (task.id, "ev\u200bil/demo"):
        found = await server.tasks.GetTask(pb.GetTaskRequest(task=name))
        assert found.owner == "ev\u200bil"
    listed = await server.tasks.ListTasks(pb.ListTasksRequest(owner="ev\u200bil"))
    assert [one.id for one in listed.tasks] == [task.id]
    refusal = await refused(server.create_task(owner="ev\u200bil"))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    await server.tasks.DeleteTask(pb.DeleteTaskRequest(task="ev\u200bil/demo"))


async def test_a_deleted_task_looks_like_one_that_never_existed(server: Server) -> None:
    task = (await server.create_task()).task
    await server.tasks.DeleteTask(pb.DeleteTaskRequest(task=TASK))

    for gone, never in ((TASK, "local/none"), (task.id, NOBODY)):
        for one, other in zip(
            await _refusals(server, gone), await _refusals(server, never), strict=True
        ):
            assert one.code is other.code is grpc.StatusCode.NOT_FOUND
            assert one.message == f'task "{gone}" was not found'
            assert other.message == f'task "{never}" was not found'
            assert one.details == other.details
            assert one.reason == "TASK_NOT_FOUND"


async def test_a_name_is_free_again_after_deletion_and_the_new_task_has_nothing_of_the_old(
    server: Server,
) -> None:
    old = await server.create_task()
    async with ScriptedAgent.connect(server, old.agent_token) as agent:
        await agent.append(open_epoch=True, entries=[log_entry(0, "old")])
        await agent.acked()
    await server.tasks.DeleteTask(pb.DeleteTaskRequest(task=TASK))

    new = await server.create_task()

    assert new.task.id != old.task.id
    read = await server.logs.GetTaskLogs(logs_pb.GetTaskLogsRequest(task=TASK))
    assert (list(read.logs), read.revision) == ([], 0)
    assert (await refused(server.create_task())).code is grpc.StatusCode.ALREADY_EXISTS


async def test_a_task_that_is_missing_may_be_deleted_if_the_caller_allows_it(
    server: Server,
) -> None:
    task = (await server.create_task()).task
    for ref in (TASK, TASK, task.id, "local/none", NOBODY):
        await server.tasks.DeleteTask(pb.DeleteTaskRequest(task=ref, allow_missing=True))

    assert (await refused(get_task(server))).reason == "TASK_NOT_FOUND"
    refusal = await refused(server.tasks.DeleteTask(pb.DeleteTaskRequest(task=TASK)))
    assert refusal.reason == "TASK_NOT_FOUND"


async def test_deleting_ends_the_stream_with_not_found_and_revokes_the_token(
    server: Server,
) -> None:
    token = (await server.create_task()).agent_token
    async with ScriptedAgent.connect(server, token) as agent:
        await server.tasks.DeleteTask(pb.DeleteTaskRequest(task=TASK))

        ended = await agent.ended()

    assert (ended.code, ended.reason) == (grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")
    assert await _connection_refusal(server, token) is grpc.StatusCode.UNAUTHENTICATED


async def test_a_rotated_token_ends_the_stream_and_only_the_new_one_opens_the_next(
    server: Server,
) -> None:
    old = (await server.create_task()).agent_token
    async with ScriptedAgent.connect(server, old) as agent:
        new = (
            await server.tasks.RotateAgentToken(pb.RotateAgentTokenRequest(task=TASK))
        ).agent_token
        ended = await agent.ended()

    assert ended.code is grpc.StatusCode.UNAUTHENTICATED
    assert await _connection_refusal(server, old) is grpc.StatusCode.UNAUTHENTICATED
    async with ScriptedAgent.connect(server, new):
        assert (await get_task(server)).agent_connected


async def test_reports_move_a_task_through_its_states(server: Server) -> None:
    await server.create_task()

    assert (await report_build(server, job_status=types.JOB_STATUS_PENDING)).status == (
        types.TASK_STATUS_PENDING
    )
    assert (await report_build(server, job_status=types.JOB_STATUS_RUNNING)).status == (
        types.TASK_STATUS_INITIALIZING
    )
    task = await report_agent(server, READY, types.APP_HEALTH_UNSPECIFIED)
    assert task.status == types.TASK_STATUS_UNKNOWN
    task = await report_agent(server, types.AGENT_LIFECYCLE_UNSPECIFIED)
    assert task.status == types.TASK_STATUS_ACTIVE
    assert task.status_detail.agent.lifecycle == READY
    assert task.status_detail.agent.computed == types.TASK_STATUS_ACTIVE
    assert (await report_build(server, 2, STOP)).status == types.TASK_STATUS_PAUSED


async def test_a_repeated_report_is_accepted(server: Server) -> None:
    await server.create_task()
    first = await report_build(server)

    assert await report_build(server) == first


@pytest.mark.parametrize(
    ("number", "transition", "job_status"),
    [
        (1, START, types.JOB_STATUS_SUCCEEDED),
        (2, STOP, types.JOB_STATUS_SUCCEEDED),
        (2, START, types.JOB_STATUS_PENDING),
        (2, START, types.JOB_STATUS_FAILED),
    ],
    ids=["older", "other transition", "backwards", "another end"],
)
async def test_a_stale_report_changes_nothing(
    server: Server,
    number: int,
    transition: types.BuildTransition.ValueType,
    job_status: types.JobStatus.ValueType,
) -> None:
    await server.create_task()
    before = await report_build(server, 2)

    refusal = await refused(report_build(server, number, transition, job_status))

    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.reason == "STALE_REPORT"
    assert await get_task(server) == before


@pytest.mark.parametrize(("number", "reason"), [(1, "STALE_REPORT"), (3, "BUILD_NOT_REPORTED")])
async def test_a_report_of_the_agent_of_another_build_is_refused(
    server: Server, number: int, reason: str
) -> None:
    await server.create_task()
    before = await report_build(server, 2)

    refusal = await refused(report_agent(server, number=number))

    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.reason == reason
    assert await get_task(server) == before


async def test_an_agent_connected_through_stop_and_start_reports_its_state_again(
    server: Server,
) -> None:
    token = (await server.create_task()).agent_token
    await report_build(server)
    async with ScriptedAgent.connect(server, token) as agent:
        await agent.report()
        await agent.append(open_epoch=True, entries=[log_entry(0, "hello")])
        await agent.acked()
        await _is(server, types.TASK_STATUS_ACTIVE)

        assert (await report_build(server, 2, STOP)).status == types.TASK_STATUS_PAUSED
        await agent.heard(lambda: agent.report_states == 1)
        # During a stop the old workspace still sends its state, which does not count.
        await agent.report()
        await agent.append(entries=[log_entry(1, "last words")])
        await agent.acked()
        assert (await get_task(server)).status == types.TASK_STATUS_PAUSED

        assert (await report_build(server, 3)).status == types.TASK_STATUS_INITIALIZING
        await agent.heard(lambda: agent.report_states == 2)
        await agent.report()
        await _is(server, types.TASK_STATUS_ACTIVE)

        agent.answer_syncs()
        read = await server.logs.GetTaskLogs(logs_pb.GetTaskLogsRequest(task=TASK))
    assert [one.content for one in read.logs] == ["hello", "last words"]
    assert not read.snapshot


async def test_an_agents_stream_is_ended_by_the_next_start_but_not_by_a_stop(
    server: Server,
) -> None:
    token = (await server.create_task()).agent_token
    await report_build(server)
    async with ScriptedAgent.connect(server, token, build_number=1) as agent:
        await report_build(server, 2, STOP)
        await agent.append(open_epoch=True, entries=[log_entry(0, "still here")])
        await agent.acked()

        await report_build(server, 3)
        ended = await agent.ended()

    assert (ended.code, ended.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "STALE_REPORT")


async def test_the_agents_own_report_cannot_undo_a_shutdown_but_the_orchestrators_can(
    server: Server,
) -> None:
    token = (await server.create_task()).agent_token
    await make_active(server)
    async with ScriptedAgent.connect(server, token) as agent:
        await report_agent(server, types.AGENT_LIFECYCLE_SHUTTING_DOWN)
        await agent.report()
        await agent.append(open_epoch=True, entries=[log_entry(0, "after the report")])
        await agent.acked()

        task = await get_task(server)
        assert task.status_detail.agent.lifecycle == types.AGENT_LIFECYCLE_SHUTTING_DOWN
        assert (await report_agent(server)).status == types.TASK_STATUS_ACTIVE


async def test_the_log_of_a_task_is_counted(server: Server) -> None:
    token = (await server.create_task()).agent_token
    async with ScriptedAgent.connect(server, token) as agent:
        await agent.append(open_epoch=True, entries=[log_entry(0, "12345"), log_entry(1, "\u00e9")])
        await agent.acked()
        task = await get_task(server)

    assert (task.log.epoch, task.log.entries, task.log.revision, task.log.bytes) == (1, 2, 3, 7)
    assert task.log.HasField("snapshot_at")
    assert task.agent_connected


async def _is(server: Server, status: types.TaskStatus.ValueType) -> None:
    async def has_it() -> bool:
        return (await get_task(server)).status == status

    await until(has_it)


async def _connection_refusal(server: Server, token: str) -> object:
    with pytest.raises(TaskLogsRpcError) as error:
        async with ScriptedAgent.connect(server, token):
            pass
    return error.value.code


async def _refusals(server: Server, task: str) -> list[Refusal]:
    calls: list[Awaitable[Any]] = [
        server.tasks.GetTask(pb.GetTaskRequest(task=task)),
        server.tasks.DeleteTask(pb.DeleteTaskRequest(task=task)),
        server.tasks.UpdateTask(pb.UpdateTaskRequest(task=task, etag="any")),
        server.tasks.RotateAgentToken(pb.RotateAgentTokenRequest(task=task)),
        report_build(server, task=task),
        report_agent(server, task=task),
        server.logs.GetTaskLogs(logs_pb.GetTaskLogsRequest(task=task)),
        server.logs.GetTaskLogs(
            logs_pb.GetTaskLogsRequest(task=task, source=logs_pb.LOG_SOURCE_LIVE)
        ),
    ]
    return [await refused(call) for call in calls]
