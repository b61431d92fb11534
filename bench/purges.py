"""Reads while the rows of deleted tasks are purged."""

from __future__ import annotations

import itertools

import asyncpg

from bench.result import Result, compared
from bench.rounds import Figure, Rounds, measure, orders
from bench.stage import GET_TASK_LOGS, LOG_BYTES, LOG_ENTRIES, NewTask, Stage, read_request
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
    to_delete = await stage.create_tasks(stage.rounds)
    entries = 10_000 if stage.quick else 30_000
    await stage.fill(to_delete, entries=entries, content_bytes=_CONTENT_BYTES)
    reads = stage.load(
        stage.ours,
        GET_TASK_LOGS,
        [[read_request(task, source=pb.LOG_SOURCE_SNAPSHOT)] for task in readers],
    )
    figures: dict[str, list[Figure]] = {"alone": [], "purge": []}
    sql = await asyncpg.connect(stage.dsn)

    async def is_purged() -> bool:
        return bool(await sql.fetchval(_LEFT) == 0)

    async def measure_one(name: str) -> None:
        if name == "purge":
            await _delete(stage, to_delete.pop())
        figures[name].append(await measure(reads, stage.cpu))
        if name == "purge":
            if await is_purged():
                raise RuntimeError("the purge ended before the reads did")
            await until(is_purged)

    try:
        for order in itertools.islice(orders(list(figures)), stage.rounds):
            for name in order:
                await measure_one(name)
    finally:
        await sql.close()
    rounds = Rounds(figures)
    return [
        compared(
            "snapshot read, 30 entries, 64 KB, 32 callers, while a deleted log is purged, against"
            " the same without a purge",
            rounds.compare("purge", "alone"),
            unit="calls/s",
            target=0.85,
        )
    ]


async def _delete(stage: Stage, task: NewTask) -> None:
    async with open_channel(stage.ours.address) as channel:
        request = tasks_pb2.DeleteTaskRequest(task=str(task.id))
        await TasksStub(channel).DeleteTask(request)
