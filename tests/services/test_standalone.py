"""Standalone tasks have no orchestrator: their facts come from the agent stream alone."""

from __future__ import annotations

from datetime import timedelta

import asyncpg
import grpc

from tasklogs.v1 import task_logs_pb2 as logs_pb
from tasklogs.v1 import tasks_pb2 as pb
from tasklogs.v1 import types_pb2 as types
from tests.support.fixtures.agent_stream import GOODBYE_STOPPING, ScriptedAgent, log_entry
from tests.support.fixtures.conditions import until
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.reports import (
    SUCCEEDED,
    TASK,
    get_task,
    make_active,
    report_agent,
    report_build,
)
from tests.support.fixtures.server import MakeServer, Server


async def read(
    server: Server, source: logs_pb.LogSource.ValueType = logs_pb.LOG_SOURCE_UNSPECIFIED
) -> logs_pb.GetTaskLogsResponse:
    return await server.logs.GetTaskLogs(logs_pb.GetTaskLogsRequest(task=TASK, source=source))


async def becomes(server: Server, status: types.TaskStatus.ValueType) -> pb.Task:
    async def has_it() -> bool:
        return (await get_task(server)).status == status

    await until(has_it)
    return await get_task(server)


async def test_it_runs_while_its_agent_is_connected_and_is_paused_by_its_goodbye(
    server: Server,
) -> None:
    created = await server.create_task(standalone=True)
    assert created.task.status == types.TASK_STATUS_PENDING

    async with ScriptedAgent.connect(server, created.agent_token) as agent:
        task = await get_task(server)
        assert task.status == types.TASK_STATUS_INITIALIZING
        assert task.status_detail.build.number == 1
        assert task.status_detail.build.transition == types.BUILD_TRANSITION_START
        assert task.status_detail.build.job_status == SUCCEEDED

        agent.answer_syncs()
        await agent.report()
        await agent.append(open_epoch=True, entries=[log_entry(0, "hello")])
        await becomes(server, types.TASK_STATUS_ACTIVE)
        assert not (await read(server)).snapshot

        ended = await agent.goodbye()
        assert ended.code is grpc.StatusCode.OK

    task = await get_task(server)
    assert task.status == types.TASK_STATUS_PAUSED
    assert not task.agent_connected
    stored = await read(server)
    assert stored.snapshot
    assert [one.content for one in stored.logs] == ["hello"]

    async with ScriptedAgent.connect(server, created.agent_token) as agent:
        task = await get_task(server)
        assert task.status == types.TASK_STATUS_INITIALIZING
        assert task.status_detail.build.number == 3


async def test_a_lost_stream_makes_the_status_unknown_after_the_lease(
    make_server: MakeServer,
) -> None:
    async with make_server(lease=timedelta(seconds=1)) as server:
        token = (await server.create_task(standalone=True)).agent_token
        async with ScriptedAgent.connect(server, token) as agent:
            await agent.report()
            await becomes(server, types.TASK_STATUS_ACTIVE)
            agent.vanish()
            await agent.ended()

        task = await becomes(server, types.TASK_STATUS_UNKNOWN)
        assert task.status_detail.agent.lifecycle == types.AGENT_LIFECYCLE_OFF
        refusal = await refused(read(server))
        assert refusal.reason == "TASK_STATE_CONFLICT"
        assert (await read(server, logs_pb.LOG_SOURCE_SNAPSHOT)).snapshot

        async with ScriptedAgent.connect(server, token) as agent:
            assert (await get_task(server)).status != types.TASK_STATUS_UNKNOWN
            await agent.report()
            task = await becomes(server, types.TASK_STATUS_ACTIVE)
            assert task.status_detail.build.number == 1


async def test_a_stream_that_returns_within_the_lease_changes_no_status(server: Server) -> None:
    token = (await server.create_task(standalone=True)).agent_token
    async with ScriptedAgent.connect(server, token) as agent:
        await agent.report()
        await becomes(server, types.TASK_STATUS_ACTIVE)
        agent.vanish()
        await agent.ended()

    async def is_lost() -> bool:
        return not (await get_task(server)).agent_connected

    await until(is_lost)
    assert (await get_task(server)).status == types.TASK_STATUS_ACTIVE

    async with ScriptedAgent.connect(server, token):
        task = await get_task(server)
        assert (task.status, task.status_detail.build.number) == (types.TASK_STATUS_ACTIVE, 1)


async def test_a_goodbye_for_a_stop_changes_no_facts_and_the_lease_runs(
    make_server: MakeServer,
) -> None:
    async with make_server(lease=timedelta(seconds=1)) as server:
        token = (await server.create_task(standalone=True)).agent_token
        async with ScriptedAgent.connect(server, token) as agent:
            await agent.report()
            await becomes(server, types.TASK_STATUS_ACTIVE)
            await agent.goodbye(GOODBYE_STOPPING)

        task = await becomes(server, types.TASK_STATUS_UNKNOWN)
        assert task.status_detail.build.transition == types.BUILD_TRANSITION_START


async def test_the_time_without_a_server_does_not_count_against_the_lease(
    make_server: MakeServer, database: str
) -> None:
    async with make_server(lease=timedelta(seconds=30)) as server:
        token = (await server.create_task(standalone=True)).agent_token
        async with ScriptedAgent.connect(server, token) as agent:
            await agent.report()
            await becomes(server, types.TASK_STATUS_ACTIVE)
    connection = await asyncpg.connect(database)
    try:
        # As if the server had been down for an hour.
        await connection.execute(
            "UPDATE processes SET heartbeat_at = heartbeat_at - interval '1 hour',"
            " up_since = up_since - interval '1 hour'"
        )
        await connection.execute(
            "UPDATE tasks SET session_lost_at = session_lost_at - interval '1 hour'"
        )
    finally:
        await connection.close()

    async with make_server(lease=timedelta(seconds=30)) as server:
        assert (await get_task(server)).status == types.TASK_STATUS_ACTIVE


async def test_an_orchestrated_tasks_goodbye_changes_only_whether_it_is_connected(
    server: Server,
) -> None:
    token = (await server.create_task()).agent_token
    await make_active(server)
    async with ScriptedAgent.connect(server, token) as agent:
        connected = await get_task(server)
        await agent.goodbye()

    left = await get_task(server)
    assert connected.agent_connected
    assert not left.agent_connected
    connected.agent_connected = False
    assert left == connected


async def test_reports_of_an_orchestrator_are_refused(server: Server) -> None:
    await server.create_task(standalone=True)
    for report in (report_build(server), report_agent(server)):
        refusal = await refused(report)
        assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
        assert refusal.reason == "TASK_STANDALONE"
    assert (await get_task(server)).status == types.TASK_STATUS_PENDING


async def test_after_its_lease_it_starts_with_new_facts_and_not_the_old_ones(
    make_server: MakeServer,
) -> None:
    async with make_server(lease=timedelta(seconds=1)) as server:
        token = (await server.create_task(standalone=True)).agent_token
        async with ScriptedAgent.connect(server, token) as agent:
            await agent.report()
            await becomes(server, types.TASK_STATUS_ACTIVE)
        await becomes(server, types.TASK_STATUS_UNKNOWN)
        async with ScriptedAgent.connect(server, token):
            assert (await get_task(server)).status == types.TASK_STATUS_INITIALIZING
