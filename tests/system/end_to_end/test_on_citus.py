"""Two servers on a Postgres that is sharded by Citus, from the creation of a task to its deletion.

The tests of tests/store look at each statement; this one at all of them together.
"""

from __future__ import annotations

from typing import Any

import asyncpg
import grpc
import pytest

from tasklogs.v1 import task_logs_pb2 as logs_pb
from tasklogs.v1 import tasks_pb2 as pb
from tests.store.logs import Connection
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry, tail_delta
from tests.support.fixtures.citus import needs_citus
from tests.support.fixtures.conditions import until
from tests.support.fixtures.reports import TASK, make_active
from tests.support.fixtures.server import Server, serving

pytestmark = [needs_citus, pytest.mark.timeout(300)]


async def read(server: Server, **query: Any) -> logs_pb.GetTaskLogsResponse:
    return await server.logs.GetTaskLogs(logs_pb.GetTaskLogsRequest(task=TASK, **query))


async def test_a_task_lives_and_is_deleted_on_two_servers(citus_database: str) -> None:
    async with serving(citus_database) as one, serving(citus_database) as other:
        created = await one.create_task()
        await make_active(one)
        async with ScriptedAgent.connect(one, created.agent_token, build_number=1) as agent:
            agent.answer_syncs()
            await agent.append(
                open_epoch=True, entries=[log_entry(0, "hello"), log_entry(1, "wor")]
            )
            await agent.acked(1)
            assert [entry.content for entry in (await read(one)).logs] == ["hello", "wor"]

            follow = other.logs.FollowTaskLogs(logs_pb.FollowTaskLogsRequest(task=TASK))
            contents: dict[int, str] = {}
            await agent.append(tail=tail_delta(1, 3, "ld"))
            await agent.acked(2)
            async for message in follow:
                contents |= {entry.id: entry.content for entry in message.entries.logs}
                if contents.get(1) == "world":
                    break
            follow.cancel()
            live = await read(other)  # by name, on the server that has not the session
            assert not live.snapshot
            assert [entry.content for entry in live.logs] == ["hello", "world"]
            first = await read(other, page_size=1)
            later = await read(other, page_size=1, page_token=first.next_page_token)
            assert [entry.content for entry in later.logs] == ["world"]
            listed = await other.tasks.ListTasks(pb.ListTasksRequest())
            assert [task.name for task in listed.tasks] == ["demo"]
            assert listed.tasks[0].agent_connected
            await agent.goodbye()

        stored = await read(other, source=logs_pb.LOG_SOURCE_SNAPSHOT)
        assert stored.snapshot
        assert [entry.content for entry in stored.logs] == ["hello", "world"]
        await other.tasks.DeleteTask(pb.DeleteTaskRequest(task=TASK))
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await read(one)
        assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
        sql: Connection = await asyncpg.connect(citus_database)
        try:
            for table in ("log_entries", "log_tail_parts", "log_events", "tasks", "task_names"):

                async def is_empty(table: str = table) -> bool:
                    return not await sql.fetchval(f"SELECT count(*) FROM {table}")

                await until(is_empty)
        finally:
            await sql.close()
        await one.create_task()  # the name is free again
