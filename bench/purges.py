"""Reads while the rows of deleted tasks are purged."""

from __future__ import annotations

import asyncpg

from bench.result import Result, compared
from bench.rounds import interleave
from bench.stage import GET_TASK_LOGS, LOG_BYTES, LOG_ENTRIES, Stage, read_request
from tasklogs.connection.channel import open_channel
from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import tasks_pb2
from tasklogs.v1.tasks_pb2_grpc import TasksStub
from tests.support.fixtures.conditions import until

_CALLERS = 32
_CONTENT_BYTES = 200
_LEFT = "SELECT count(*) FROM tasks WHERE deleted_at IS NOT NULL"


async def reads_during_a_purge(stage: Stage) -> list[Result]:
    """The same reads with and without a purge that goes on for the whole round."""
    readers = await stage.create_tasks(_CALLERS)
    await stage.fill(readers, entries=LOG_ENTRIES, content_bytes=LOG_BYTES // LOG_ENTRIES)
    to_delete = await stage.create_tasks(stage.rounds + 1)
    entries = 10_000 if stage.quick else 30_000
    await stage.fill(to_delete, entries=entries, content_bytes=_CONTENT_BYTES)
    reads = stage.load(
        stage.ours,
        GET_TASK_LOGS,
        [[read_request(task, source=pb.LOG_SOURCE_SNAPSHOT)] for task in readers],
    )
    sql = await asyncpg.connect(stage.dsn)

    async def is_purged() -> bool:
        return bool(await sql.fetchval(_LEFT) == 0)

    async def during_a_purge() -> float:
        async with open_channel(stage.ours.address) as channel:
            request = tasks_pb2.DeleteTaskRequest(task=str(to_delete.pop().id))
            await TasksStub(channel).DeleteTask(request)
        figure = await reads()
        if await is_purged():
            raise RuntimeError("the purge ended before the reads did")
        await until(is_purged)
        return figure

    try:
        rounds = await interleave({"alone": reads, "purge": during_a_purge}, stage.rounds)
    finally:
        await sql.close()
    return [
        compared(
            "snapshot read, 30 entries, 64 KB, 32 callers, while a deleted log is purged, against"
            " the same without a purge",
            rounds.compare("purge", "alone"),
            unit="calls/s",
            target=0.85,
            prototype="-",
        )
    ]
