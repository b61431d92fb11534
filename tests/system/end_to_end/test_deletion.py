"""Deleting a big log delays no other task, and leaves none of its rows whatever happens."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

import grpc
import pytest

from tasklogs.errors import TaskLogsRpcError
from tasklogs.v1 import task_logs_pb2, task_logs_pb2_grpc, tasks_pb2, tasks_pb2_grpc
from tests.store.logs import ENTRY_COLUMNS, Connection, entry_record, entry_row
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.conditions import until
from tests.support.fixtures.ports import lasting_port
from tests.support.fixtures.server import Server
from tests.system.end_to_end.programs import Program, program, serve_command

ROWS = 100_000
CALL_SECONDS = 10.0
PURGED_WITHIN_SECONDS = 90.0


async def fill(sql: Connection, task_id: UUID) -> None:
    """Give a task a log of many entries, and rows in every table that logs use."""
    rows = (entry_row(1, number, number + 2, b"x" * 200) for number in range(ROWS))
    await sql.copy_records_to_table(
        "log_entries",
        records=(entry_record(task_id, row) for row in rows),
        columns=ENTRY_COLUMNS,
    )
    await sql.execute("INSERT INTO log_events VALUES ($1, 1, 1)", task_id)
    await sql.execute("INSERT INTO log_tail_parts VALUES ($1, 200000, 0, 'x')", task_id)
    await sql.execute(
        "UPDATE log_heads SET epoch = 1, entries = $2, revision = $2 + 1, total_rows = $2 + 1,"
        " bytes = $2 * 200 WHERE task_id = $1",
        task_id,
        ROWS,
    )


async def rows_left(sql: Connection, task_id: UUID) -> dict[str, int]:
    """Count the rows of a task in every table."""
    tables = await sql.fetch(
        "SELECT table_name FROM information_schema.columns"
        " WHERE column_name = 'task_id' AND table_schema = 'public'"
    )
    assert len(tables) >= 6
    left = {}
    for row in tables:
        table = row["table_name"]
        count = await sql.fetchval(f"SELECT count(*) FROM {table} WHERE task_id = $1", task_id)
        if count:
            left[table] = count
    return left


async def until_nothing_is_left(sql: Connection, task_id: UUID) -> None:
    async def is_gone() -> bool:
        return not await rows_left(sql, task_id)

    await until(is_gone, seconds=PURGED_WITHIN_SECONDS)


async def delete(channel: grpc.aio.Channel, task: str) -> None:
    stub = tasks_pb2_grpc.TasksStub(channel)
    await stub.DeleteTask(tasks_pb2.DeleteTaskRequest(task=task), timeout=CALL_SECONDS)


@pytest.mark.timeout(180)
async def test_other_tasks_are_read_and_written_while_a_big_log_is_deleted(
    server: Server, sql: Connection
) -> None:
    big = (await server.create_task("big")).task
    await fill(sql, UUID(big.id))
    other = await server.create_task("other")
    answered = 0
    async with ScriptedAgent.connect(server, other.agent_token) as agent:
        await agent.append([log_entry(0, "0")], open_epoch=True)
        await agent.acked()
        await delete(server.channel, "local/big")
        while "log_entries" in await rows_left(sql, UUID(big.id)):
            answered += 1
            await agent.append([log_entry(answered, str(answered))])
            await agent.acked()
            request = task_logs_pb2.GetTaskLogsRequest(task="local/other", tail=1)
            [last] = (await server.logs.GetTaskLogs(request, timeout=CALL_SECONDS)).logs
            assert last.content == str(answered)
    assert answered > 5, "the log was deleted too fast for this test to see anything"
    await until_nothing_is_left(sql, UUID(big.id))
    assert (await rows_left(sql, UUID(other.task.id)))["log_entries"] == answered + 1


async def test_no_row_is_left_of_a_task_whose_agent_commits_while_it_is_deleted(
    server: Server, sql: Connection
) -> None:
    created = await server.create_task()
    task_id = UUID(created.task.id)
    async with ScriptedAgent.connect(server, created.agent_token) as agent:
        await agent.append([log_entry(0, "0")], open_epoch=True)
        await agent.acked()

        async def write_on() -> None:
            for number in range(1, 1_000_000):
                await agent.append([log_entry(number, str(number))])

        async def delete_when_it_writes() -> None:
            await agent.acked(100)
            await delete(server.channel, "local/demo")

        deleting = asyncio.create_task(delete_when_it_writes())
        with pytest.raises(TaskLogsRpcError) as ended:
            await write_on()
        await deleting
        # grpc.aio may report INTERNAL for a write that races with the end of its stream.
        assert ended.value.code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL)
    await until_nothing_is_left(sql, task_id)


@pytest.mark.timeout(300)
async def test_the_next_server_finishes_a_deletion_that_a_killed_server_began(
    database: str, sql: Connection, tmp_path: Path
) -> None:
    port = lasting_port()
    async with (
        program(tmp_path / "server.log", *serve_command(port, database)) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        task_id = await _create(channel, server)
        await fill(sql, task_id)
        await delete(channel, str(task_id))

        async def is_begun() -> bool:
            return (await rows_left(sql, task_id)).get("log_entries", 0) < ROWS

        await until(is_begun)
        await server.kill()
        left = await rows_left(sql, task_id)
        assert left["log_entries"] > 0, "the deletion finished before the kill"
        assert left["tasks"] == 1
        await server.start()
        await until_nothing_is_left(sql, task_id)
        logs = task_logs_pb2_grpc.TaskLogsStub(channel)
        request = task_logs_pb2.GetTaskLogsRequest(task=str(task_id))
        with pytest.raises(grpc.aio.AioRpcError) as gone:
            await logs.GetTaskLogs(request, wait_for_ready=True, timeout=CALL_SECONDS)
        assert gone.value.code() is grpc.StatusCode.NOT_FOUND


async def _create(channel: grpc.aio.Channel, server: Program) -> UUID:
    tasks = tasks_pb2_grpc.TasksStub(channel)
    request = tasks_pb2.CreateTaskRequest(name="big")
    created = await tasks.CreateTask(request, wait_for_ready=True, timeout=60)
    assert server.is_running
    return UUID(created.task.id)
