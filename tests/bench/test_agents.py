from __future__ import annotations

import asyncio

import grpc
import pytest

from bench.agents import Agent
from bench.writers import Writer
from tasklogs.v1 import task_logs_pb2 as pb
from tests.support.fixtures.reports import TASK
from tests.support.fixtures.server import Server


async def test_an_agent_answers_syncs_while_it_appends(server: Server) -> None:
    made = await server.create_task(standalone=True)
    agent = await Agent.connect(server.address, made.agent_token)
    try:
        writer = Writer(agent, entries=2, content_bytes=600_000)
        await writer.write()

        async def change() -> None:
            for _ in range(30):
                await writer.change()

        async def read() -> None:
            for _ in range(30):
                await server.logs.GetTaskLogs(
                    pb.GetTaskLogsRequest(task=TASK, source=pb.LOG_SOURCE_LIVE, tail=0)
                )

        async with asyncio.timeout(60):
            await asyncio.gather(change(), *(read() for _ in range(8)))
    finally:
        await agent.close()


async def test_an_append_fails_when_its_stream_ends(server: Server) -> None:
    made = await server.create_task(standalone=True)
    agent = await Agent.connect(server.address, made.agent_token)
    try:
        writer = Writer(agent, entries=1, content_bytes=1000)
        await writer.write()
        # A second stream of the task ends the first one.
        other = await Agent.connect(server.address, made.agent_token)
        with pytest.raises(
            grpc.aio.AioRpcError, match="a later session of the task has taken over"
        ):
            async with asyncio.timeout(60):
                while True:
                    await writer.change()
        await other.close()
    finally:
        await agent.close()
