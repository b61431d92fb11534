"""The agent stream over a socket."""

from __future__ import annotations

import grpc
import pytest

from tasklogs.errors import TaskLogsRpcError
from tasklogs.v1 import task_logs_pb2
from tests.fixtures.agent_stream import ScriptedAgent, log_entry, tail_delta
from tests.fixtures.server import Server


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


async def test_a_stream_with_a_garbled_token_is_refused(server: Server) -> None:
    await server.create_task()
    with pytest.raises(TaskLogsRpcError) as refused:
        async with ScriptedAgent.connect(server, "tla_garbage"):
            pass
    assert refused.value.code is grpc.StatusCode.UNAUTHENTICATED
