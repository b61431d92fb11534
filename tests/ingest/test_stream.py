"""The agent stream over a socket."""

from __future__ import annotations

import grpc
import pytest

from tasklogs.errors import TaskLogsRpcError
from tasklogs.v1 import task_logs_pb2, tasks_pb2
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry, tail_delta
from tests.support.fixtures.conditions import until
from tests.support.fixtures.server import MakeServer, Server


async def test_what_an_agent_appends_is_read_back_once_it_is_acknowledged(server: Server) -> None:
    made = await server.create_task()
    async with ScriptedAgent.connect(server, made.agent_token) as agent:
        assert agent.welcome.epoch == 0
        await agent.append([log_entry(0, "hello"), log_entry(1, "wor")], open_epoch=True)
        await agent.append(tail=tail_delta(1, 3, "ld"))
        await agent.acked()
        answer = await server.logs.GetTaskLogs(
            task_logs_pb2.GetTaskLogsRequest(
                task="local/demo", source=task_logs_pb2.LOG_SOURCE_SNAPSHOT
            )
        )
        assert [(one.id, one.content) for one in answer.logs] == [(0, "hello"), (1, "world")]
        assert (await agent.goodbye()).code is grpc.StatusCode.OK


async def test_a_second_stream_takes_over_and_the_first_is_aborted(server: Server) -> None:
    made = await server.create_task()
    async with ScriptedAgent.connect(server, made.agent_token) as first:
        await first.append([log_entry(0, "a")], open_epoch=True)
        await first.acked()
        async with ScriptedAgent.connect(server, made.agent_token) as second:
            ended = await first.ended()
            assert (ended.code, ended.reason) == (
                grpc.StatusCode.ABORTED,
                "SESSION_SUPERSEDED",
            )
            assert second.welcome.entries == 1
            assert second.welcome.tail.content_bytes == 1
            await second.append([log_entry(1, "b")])
            await second.acked()


async def test_a_sender_that_never_waits_for_an_ack_loses_nothing(make_server: MakeServer) -> None:
    async with make_server(window_bytes=1024 * 1024, ingest_bytes=4 * 1024 * 1024) as server:
        made = await server.create_task()
        async with ScriptedAgent.connect(server, made.agent_token) as agent:
            await agent.append(open_epoch=True)
            for number in range(100):
                await agent.append([log_entry(number, "x" * 200_000)])
            await agent.acked()
        task = await server.tasks.GetTask(tasks_pb2.GetTaskRequest(task="local/demo"))
        assert (task.log.entries, task.log.bytes) == (100, 20_000_000)


async def test_an_agent_that_vanishes_is_no_longer_connected(server: Server) -> None:
    made = await server.create_task()

    async def is_connected() -> bool:
        task = await server.tasks.GetTask(tasks_pb2.GetTaskRequest(task="local/demo"))
        return task.agent_connected

    async with ScriptedAgent.connect(server, made.agent_token) as agent:
        assert await is_connected()
        agent.vanish()

        async def is_gone() -> bool:
            return not await is_connected()

        await until(is_gone)


async def test_a_stream_with_a_garbled_token_is_refused(server: Server) -> None:
    await server.create_task()
    with pytest.raises(TaskLogsRpcError) as refused:
        async with ScriptedAgent.connect(server, "tla_garbage"):
            pass
    assert refused.value.code is grpc.StatusCode.UNAUTHENTICATED
