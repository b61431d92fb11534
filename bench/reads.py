"""Reads: snapshot and live, short tails of long logs, whole logs in pages."""

from __future__ import annotations

import asyncio
import struct

import asyncpg
import grpc

from bench.processes import our_server
from bench.result import Result, compared
from bench.rounds import Comparison, interleave
from bench.stage import (
    GET_TASK_LOGS,
    LOG_BYTES,
    LOG_ENTRIES,
    NewTask,
    Stage,
    read_request,
)
from tasklogs.connection.channel import open_channel
from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1.task_logs_pb2_grpc import TaskLogsStub

_CALLERS = 32
_KEPT_ENTRIES = 10_000
_PER_APPEND = 100
_CONSTANT = "/bench.Bare/Constant"
_LOG = "/bench.Bare/Log"
_PAGE = "/bench.Bare/Page"


async def snapshot_of_many(stage: Stage) -> list[Result]:
    """32 callers, each on its own task."""
    tasks = await stage.create_tasks(_CALLERS)
    await stage.fill(tasks, entries=LOG_ENTRIES, content_bytes=LOG_BYTES // LOG_ENTRIES)
    ours = [[read_request(task, source=pb.LOG_SOURCE_SNAPSHOT)] for task in tasks]
    rounds = await interleave(
        {
            "ours": stage.load(stage.ours, GET_TASK_LOGS, ours),
            "query": stage.load(stage.bare, _LOG, [[task.id.bytes] for task in tasks]),
            "constant": stage.load(stage.bare, _CONSTANT, ours),
        },
        stage.rounds,
        stage.cpu,
    )
    what = "snapshot read, 30 entries, 64 KB, 32 callers on 32 tasks"
    return [
        compared(
            f"{what}, against one query",
            rounds.compare("ours", "query"),
            unit="calls/s",
            target=1.6,
            shown="1.42 to 1.62",
        ),
        compared(
            f"{what}, against a constant",
            rounds.compare("ours", "constant"),
            unit="calls/s",
            target=0.8,
            shown="0.70 to 0.82",
        ),
    ]


async def snapshot_of_one(stage: Stage) -> list[Result]:
    """32 callers on one task: they share reads."""
    (task,) = await stage.create_tasks(1)
    await stage.fill([task], entries=LOG_ENTRIES, content_bytes=LOG_BYTES // LOG_ENTRIES)
    request = read_request(task, source=pb.LOG_SOURCE_SNAPSHOT)
    return [
        compared(
            "snapshot read, 30 entries, 64 KB, 32 callers on one task, against a constant",
            await _against_constant(stage, request),
            unit="calls/s",
            target=0.8,
            shown="0.75 to 0.81",
        )
    ]


async def one_caller(stage: Stage) -> list[Result]:
    """One caller, one call at a time: the server has nothing else to do."""
    (task,) = await stage.create_tasks(1)
    await stage.fill([task], entries=LOG_ENTRIES, content_bytes=LOG_BYTES // LOG_ENTRIES)
    request = read_request(task, source=pb.LOG_SOURCE_SNAPSHOT)
    rounds = await interleave(
        {
            "ours": stage.load(stage.ours, GET_TASK_LOGS, [[request]]),
            "query": stage.load(stage.bare, _LOG, [[task.id.bytes]]),
        },
        stage.rounds,
        stage.cpu,
    )
    return [
        compared(
            "snapshot read, 30 entries, 64 KB, one call at a time, against one query",
            rounds.compare_times("ours", "query", per_second=1000),
            unit="ms/call",
            at_most=True,
        )
    ]


async def live_of_one(stage: Stage) -> list[Result]:
    """32 callers on one task whose agent, in a client process, answers each sync at once."""
    (task,) = await stage.create_tasks(1, standalone=True)
    await stage.fill([task], entries=LOG_ENTRIES, content_bytes=LOG_BYTES // LOG_ENTRIES)
    agent = stage.clients[-1]
    await agent.do("open_agents", address=stage.ours.address, tokens=[task.token])
    try:
        await until_active(stage, task)
        comparison = await _against_constant(stage, read_request(task, source=pb.LOG_SOURCE_LIVE))
    finally:
        await agent.do("close_agents")
    return [
        compared(
            "live read with nothing new, 32 callers on one task, against a constant",
            comparison,
            unit="calls/s",
            target=0.65,
            shown="0.51 to 0.54",
        )
    ]


async def short_tail(stage: Stage) -> list[Result]:
    """`tail=30`, one caller at a time, of a short log and of a long one."""
    content_bytes = 100
    long = 50_000 if stage.quick else 1_000_000
    of_short, of_long = await stage.create_tasks(2)
    await stage.fill([of_short], entries=1000, content_bytes=content_bytes)
    await stage.fill([of_long], entries=long, content_bytes=content_bytes)
    rounds = await interleave(
        {
            name: stage.load(
                stage.ours,
                GET_TASK_LOGS,
                [[read_request(task, source=pb.LOG_SOURCE_SNAPSHOT, tail=30)]],
            )
            for name, task in (("short", of_short), ("long", of_long))
        },
        stage.rounds,
        stage.cpu,
    )
    return [
        compared(
            f"tail=30 of {long:,} entries (ours) and of 1,000 (bare)",
            rounds.compare_times("long", "short", per_second=1000),
            unit="ms/call",
            target=1.1,
            at_most=True,
        )
    ]


async def evicted_tail(stage: Stage) -> list[Result]:
    """`tail=30` of a log that has just lost 100,000 entries to its limits, and of a short one."""
    lost = 5_000 if stage.quick else 100_000
    appends, short_appends = (lost + _KEPT_ENTRIES) // _PER_APPEND, 10
    settings = {"TASKLOGS_LOG_ENTRIES": str(_KEPT_ENTRIES), "TASKLOGS_MIN_RETENTION": "0"}
    agent, sql = stage.clients[0], await asyncpg.connect(stage.dsn)
    try:
        # Dead rows are what is measured.
        await sql.execute("ALTER TABLE log_entries SET (autovacuum_enabled = false)")
    finally:
        await sql.close()
    async with our_server(stage.dsn, variables=settings) as server:
        tasks = await stage.create_tasks(2, standalone=True, server=server)
        for task, count in zip(tasks, (appends, short_appends), strict=True):
            await agent.do("open_agents", address=server.address, tokens=[task.token])
            await agent.do(
                "flood", entries_per_append=_PER_APPEND, content_bytes=100, appends_each=count
            )
            await agent.do("close_agents")
        rounds = await interleave(
            {
                name: stage.load(
                    server,
                    GET_TASK_LOGS,
                    [[read_request(task, source=pb.LOG_SOURCE_SNAPSHOT, tail=30)]],
                )
                for name, task in zip(("evicted", "short"), tasks, strict=True)
            },
            stage.rounds,
            stage.cpu,
        )
    return [
        compared(
            f"tail=30 of a log that has just lost {lost:,} entries to its limits (ours) and of"
            " 1,000 entries (bare)",
            rounds.compare_times("evicted", "short", per_second=1000),
            unit="ms/call",
            target=1.5,
            at_most=True,
            note=f"{_KEPT_ENTRIES:,} entries are left; nothing has been vacuumed",
        )
    ]


async def whole_log(stage: Stage) -> list[Result]:
    """A log of 20 MB, page by page, one reader."""
    entries = 2000 if stage.quick else 10_000
    (task,) = await stage.create_tasks(1)
    await stage.fill([task], entries=entries, content_bytes=2000)
    pages, ranges = await _pages(stage, task)
    bare = [struct.pack(">16sii", task.id.bytes, start, end) for start, end in ranges]
    seconds = 0.3 if stage.quick else 0.8
    rounds = await interleave(
        {
            "ours": stage.load(stage.ours, GET_TASK_LOGS, [pages], count="bytes", seconds=seconds),
            "bare": stage.load(stage.bare, _PAGE, [bare], count="bytes", seconds=seconds),
        },
        stage.rounds,
        stage.cpu,
    )
    return [
        compared(
            f"whole log of {entries:,} entries, {entries * 2 // 1000} MB, in {len(pages)} pages,"
            " against one query a page",
            rounds.compare("ours", "bare"),
            unit="bytes/s",
            target=0.9,
        )
    ]


async def _pages(stage: Stage, task: NewTask) -> tuple[list[bytes], list[tuple[int, int]]]:
    """Read the log once. Return the request of each page, and the ordinals that it returned."""
    requests: list[bytes] = []
    ranges: list[tuple[int, int]] = []
    token, start = "", 0
    async with open_channel(stage.ours.address) as channel:
        while token or not requests:
            request = pb.GetTaskLogsRequest(
                task=str(task.id), source=pb.LOG_SOURCE_SNAPSHOT, page_token=token
            )
            page = await TaskLogsStub(channel).GetTaskLogs(request)
            requests.append(request.SerializeToString())
            ranges.append((start, start + len(page.logs)))
            start += len(page.logs)
            token = page.next_page_token
    return requests, ranges


async def _against_constant(stage: Stage, request: bytes) -> Comparison:
    callers = [[request]] * _CALLERS
    rounds = await interleave(
        {
            "ours": stage.load(stage.ours, GET_TASK_LOGS, callers),
            "constant": stage.load(stage.bare, _CONSTANT, callers),
        },
        stage.rounds,
        stage.cpu,
    )
    return rounds.compare("ours", "constant")


async def until_active(stage: Stage, task: NewTask) -> None:
    """Wait until the agent's health report has arrived. Before that, live reads are refused."""
    async with asyncio.timeout(10), open_channel(stage.ours.address) as channel:
        while True:
            try:
                await TaskLogsStub(channel).GetTaskLogs(
                    pb.GetTaskLogsRequest(task=str(task.id), source=pb.LOG_SOURCE_LIVE)
                )
                return
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                    raise
                await asyncio.sleep(0.01)
