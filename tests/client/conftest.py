"""Fixtures of the tests of the client."""

from __future__ import annotations

import pytest

from tasklogs import BuildTransition, JobStatus, TaskLogsClient
from tasklogs.v1 import types_pb2
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.server import Server


@pytest.fixture
async def address(server: Server) -> str:
    """A server with the task `local/demo`, which is paused and has a question and its answer."""
    async with TaskLogsClient(server.address) as operator:
        created = await operator.create_task("demo")
        await operator.report_build("local/demo", 1, BuildTransition.START, JobStatus.SUCCEEDED)
        async with ScriptedAgent.connect(server, created.agent_token) as agent:
            await agent.append(
                [
                    log_entry(0, "What is 6 times 7?", type_=types_pb2.TASK_LOG_TYPE_INPUT),
                    log_entry(1, "It is 42.", type_=types_pb2.TASK_LOG_TYPE_OUTPUT),
                ],
                open_epoch=True,
            )
            await agent.acked()
            await operator.report_build("local/demo", 2, BuildTransition.STOP, JobStatus.SUCCEEDED)
    return server.address
