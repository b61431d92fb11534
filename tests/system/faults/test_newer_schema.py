"""A rolling upgrade: servers go on after a newer server has migrated the schema under them."""

from __future__ import annotations

import asyncio

import asyncpg
import grpc
import pytest

from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import tasks_pb2
from tasklogs_server.process.lifecycle import StartupError
from tasklogs_server.store.migrate import OUR_TABLES
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.reports import TASK, make_active, report_build
from tests.support.fixtures.server import MakeServer, Server


async def migrate_as_a_newer_server(dsn: str) -> None:
    """Do what migrations may do while servers of the version before still run: add columns."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            for table in OUR_TABLES:
                await connection.execute(
                    f"ALTER TABLE {table} ADD COLUMN added integer NOT NULL DEFAULT 7"
                )
            await connection.execute("UPDATE alembic_version SET version_num = '9999'")
    finally:
        await connection.close()


class Work:
    """Every kind of call once; the log grows with each round."""

    def __init__(self, server: Server, agent: ScriptedAgent) -> None:
        self._server = server
        self._agent = agent
        self._entries = 0

    async def do(self) -> None:
        await self._log()
        await self._tasks()

    async def _log(self) -> None:
        for _ in range(2):
            number, self._entries = self._entries, self._entries + 1
            entry = log_entry(number, f"entry {number}")
            await self._agent.append(open_epoch=number == 0, entries=[entry])
            await self._agent.acked()
        follow = self._server.logs.FollowTaskLogs(pb.FollowTaskLogsRequest(task=TASK))
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                async for message in follow:
                    if any(one.content == entry.content for one in message.entries.logs):
                        break
        finally:
            follow.cancel()
        for source in (pb.LOG_SOURCE_LIVE, pb.LOG_SOURCE_SNAPSHOT):
            request = pb.GetTaskLogsRequest(task=TASK, source=source)
            read = await self._server.logs.GetTaskLogs(request)
            assert [one.content for one in read.logs] == [
                f"entry {number}" for number in range(self._entries)
            ]

    async def _tasks(self) -> None:
        made = await self._server.create_task("other")
        task = made.task.id
        await report_build(self._server, task=task)
        await self._server.tasks.RotateAgentToken(tasks_pb2.RotateAgentTokenRequest(task=task))
        listed = await self._server.tasks.ListTasks(tasks_pb2.ListTasksRequest(owner="local"))
        assert len(listed.tasks) == 2
        await self._server.tasks.DeleteTask(tasks_pb2.DeleteTaskRequest(task=task))
        gone = await refused(self._server.tasks.GetTask(tasks_pb2.GetTaskRequest(task=task)))
        assert gone.code is grpc.StatusCode.NOT_FOUND


async def test_a_running_server_goes_on_and_the_next_of_its_version_does_not_start(
    make_server: MakeServer, database: str
) -> None:
    async with make_server() as server:
        token = (await server.create_task()).agent_token
        await make_active(server)
        async with ScriptedAgent.connect(server, token, build_number=1) as agent:
            agent.answer_syncs()
            work = Work(server, agent)
            # More often than asyncpg waits before it prepares a statement for good.
            for _ in range(3):
                await work.do()

            await migrate_as_a_newer_server(database)

            for _ in range(3):
                await work.do()
        async with ScriptedAgent.connect(server, token, build_number=1):
            stored = await server.tasks.GetTask(tasks_pb2.GetTaskRequest(task=TASK))
            assert stored.log.entries == 12
        with pytest.raises(StartupError, match="newer version"):
            async with make_server():
                pass
