"""A large store: 200,001 tasks, one of them with a log of 2,000,000 entries.

It has a Postgres and servers of its own. Reads come from one caller, one call at a time.
"""

from __future__ import annotations

import asyncio
import dataclasses
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from bench.cpu import used
from bench.large_fill import LARGE, OWNER, fill_large
from bench.processes import Server, our_server
from bench.result import Result
from bench.stage import Postgres, Stage, open_postgres
from tasklogs.connection.channel import open_channel
from tasklogs.v1 import task_logs_pb2, tasks_pb2, types_pb2
from tasklogs.v1.task_logs_pb2_grpc import TaskLogsStub
from tasklogs.v1.tasks_pb2_grpc import TasksStub

_PAGE = 1000
_CALLS = 25
_DELETIONS_AT_ONCE = 16
_LOOK_SECONDS = 0.25
_DEADLINE_SECONDS = 60
# The row of a task is the last one that a purge deletes.
_DELETED = "SELECT count(*) FROM tasks WHERE deleted_at IS NOT NULL"


@dataclass(frozen=True)
class Size:
    """How large the store is, and how long a purge may take before it is no longer waited for."""

    tasks: int
    entries: int
    deletions: int
    purge_seconds: float
    deletions_seconds: float


FULL = Size(
    tasks=200_000, entries=2_000_000, deletions=3_000, purge_seconds=300, deletions_seconds=90
)
QUICK = Size(tasks=2_000, entries=5_000, deletions=40, purge_seconds=30, deletions_seconds=30)


async def large_store(stage: Stage) -> list[Result]:
    """Starts, lists, reads, a deletion and two purges."""
    size = QUICK if stage.quick else FULL
    rows: list[Result] = []
    async with open_postgres() as postgres:
        dsn = postgres.dsn
        rows.append(_row("fill", await _seconds(lambda: fill_large(dsn, size)), "s"))
        rows.append(_row("first start, with the newer migrations", await _start(dsn, size), "s"))
        starts = [await _start(dsn, size) for _ in range(3)]
        rows.append(_row("start", statistics.median(starts), "s", starts))
        async with _serving(dsn, size) as server, _calls(server) as calls:
            store = _Large(postgres, size, server, calls)
            memory = psutil.Process(server.pid)
            rows.append(_row("server memory after the start", _megabytes(memory), "MB"))
            for measure in (store.lists, store.tasks, store.pages, store.follows):
                rows += await measure()
            rows.append(_row("server memory after the reads", _megabytes(memory), "MB"))
            for measure in (store.large_deletion, store.many_deletions):
                rows += await measure()
            rows.append(_row("server memory after the purges", _megabytes(memory), "MB"))
            rows.append(_row("the highest server memory", _peak_megabytes(server.pid), "MB"))
    return [dataclasses.replace(row, what=f"large store: {row.what}") for row in rows]


@dataclass(frozen=True)
class _Calls:
    tasks: Any
    logs: Any


class _Large:
    """The measurements on a running server."""

    def __init__(self, postgres: Postgres, size: Size, server: Server, calls: _Calls) -> None:
        self._dsn = postgres.dsn
        self._postgres = postgres
        self._size = size
        self._server = server
        self._calls = calls

    async def lists(self) -> list[Result]:
        """Pages of ListTasks, and searches for the one oldest task."""
        half = self._size.tasks // 2
        deep = await self._token_after(half)
        first = await self._timed(f"ListTasks, the first {_PAGE}", self._list, page_size=_PAGE)
        rows = [
            await self._timed("ListTasks, the first 100", self._list, page_size=100),
            first,
            await self._timed(
                f"ListTasks, 100 after {half:,}", self._list, page_size=100, page_token=deep
            ),
        ]
        for what, fields in (
            ("by status, one match, the oldest", {"status": types_pb2.TASK_STATUS_PAUSED}),
            (
                "by owner and status, one match, the oldest",
                {"owner": OWNER, "status": types_pb2.TASK_STATUS_PAUSED},
            ),
            ("by label, one match, the oldest", {"labels": ["oldest"]}),
            ("all of them", {}),
        ):
            rows += await self._search(f"ListTasks {what}", first.ours, **fields)
        return rows

    async def tasks(self) -> list[Result]:
        """GetTask and the tail of the large log."""
        return [
            await self._timed("GetTask by id", self._get, task=str(LARGE)),
            await self._timed("GetTask by name", self._get, task=f"{OWNER}/t1"),
            await self._timed(f"tail=30 of {self._size.entries:,} entries", self._read, tail=30),
        ]

    async def pages(self) -> list[Result]:
        """The whole log, then its first, middle and last page again."""
        tokens = [""]
        began = time.perf_counter()
        while following := (await self._read(page_token=tokens[-1])).next_page_token:
            tokens.append(following)
        whole = time.perf_counter() - began
        rows = [_row(f"the whole log in {len(tokens):,} pages", whole, "s")]
        for what, token in (
            ("first", tokens[0]),
            ("middle", tokens[len(tokens) // 2]),
            ("last", tokens[-1]),
        ):
            rows.append(await self._timed(f"its {what} page", self._read, page_token=token))
        return rows

    async def follows(self) -> list[Result]:
        """How a follow begins: up to caught_up, and up to the first entries of the log."""
        return [
            await self._timed(
                "a follow with tail=30, until caught_up", self._follow, until="caught_up", tail=30
            ),
            await self._timed(
                "a follow of everything, until the first entries", self._follow, until="entries"
            ),
        ]

    async def large_deletion(self) -> list[Result]:
        """Delete the task with the large log; the server purges it afterwards."""
        took = await _seconds(lambda: self._delete(str(LARGE)))
        reads, purged, left = await self._purge(self._size.purge_seconds, large=True)
        rate = (self._size.entries - left) / purged
        return [
            _row("DeleteTask of the large log", 1000 * took, "ms"),
            _row("the large log: rows left at the end of the wait", left, "rows"),
            _row("the large log: the wait for its purge", purged, "s"),
            _row("the large log: purged per second", rate, "rows/s"),
            *_reads_meanwhile("the large log", reads),
        ]

    async def many_deletions(self) -> list[Result]:
        """Delete many small tasks; the server purges them meanwhile and afterwards."""
        names = iter(range(2, self._size.deletions + 2))
        took: list[float] = []

        async def delete() -> None:
            for number in names:
                began = time.perf_counter()
                await self._delete(f"{OWNER}/t{number}")
                took.append(1000 * (time.perf_counter() - began))

        began = time.perf_counter()
        await asyncio.gather(*(delete() for _ in range(_DELETIONS_AT_ONCE)))
        answered = time.perf_counter() - began
        reads, purged, left = await self._purge(self._size.deletions_seconds)
        count = f"{self._size.deletions:,} tasks of 10 entries"
        rate = (self._size.deletions - left) / (answered + purged)
        return [
            _row(f"DeleteTask, {count}, {_DELETIONS_AT_ONCE} at once", _median(took), "ms", took),
            _row(f"{count}: left at the end of the wait", left, "tasks"),
            _row(f"{count}: the wait for their purge", answered + purged, "s"),
            _row(f"{count}: purged per second", rate, "tasks/s"),
            *_reads_meanwhile(count, reads),
        ]

    async def _purge(
        self, at_most: float, *, large: bool = False
    ) -> tuple[list[float], float, int]:
        """Read another task until the deleted tasks are gone, or for `at_most` seconds.

        Returns the ms of the reads, the seconds of the wait, and the tasks (`large`: rows) left.
        """
        reads: list[float] = []
        connection = await asyncpg.connect(self._dsn)
        try:
            began = look_at = time.perf_counter()
            while (passed := time.perf_counter() - began) < at_most:
                if time.perf_counter() >= look_at:
                    if not (count := await connection.fetchval(_DELETED)):
                        return reads, passed, 0
                    look_at = time.perf_counter() + _LOOK_SECONDS
                read = time.perf_counter()
                await self._read(task=f"{OWNER}/t{self._size.deletions + 5}", tail=30)
                reads.append(1000 * (time.perf_counter() - read))
                await asyncio.sleep(0.01)
            if large:
                entries = "SELECT count(*) FROM log_entries WHERE task_id = $1"
                count = await connection.fetchval(entries, LARGE)
            return reads, passed, int(count)
        finally:
            await connection.close()

    async def _search(self, what: str, first_page_ms: float, **fields: Any) -> list[Result]:
        """Read all pages. The targets are for a search by one status that one task has."""
        calls, found, token = 0, 0, ""
        began = time.perf_counter()
        while True:
            page = await self._list(page_size=_PAGE, page_token=token, **fields)
            calls, found, token = calls + 1, found + len(page.tasks), page.next_page_token
            if not token:
                break
        took = 1000 * (time.perf_counter() - began)
        has_targets = list(fields) == ["status"]
        return [
            Result(
                what=f"{what}: calls (found {found:,})",
                ours=calls,
                unit="calls",
                target=1 if has_targets else None,
                at_most=True,
            ),
            Result(
                what=f"{what}: time of all calls (bare: a plain first page of {_PAGE})",
                ours=took,
                bare=first_page_ms,
                ratio=took / first_page_ms,
                unit="ms",
                target=20 if has_targets else None,
                at_most=True,
            ),
        ]

    async def _token_after(self, count: int) -> str:
        token = ""
        for _ in range(count // _PAGE):
            token = (await self._list(page_size=_PAGE, page_token=token)).next_page_token
        return token

    async def _timed(self, what: str, call: Callable[..., Awaitable[Any]], **fields: Any) -> Result:
        await call(**fields)  # warms up
        before = used(self._server, self._postgres.pid)
        took = [1000 * await _seconds(lambda: call(**fields)) for _ in range(_CALLS)]
        cost = (used(self._server, self._postgres.pid) - before).per(_CALLS)
        return dataclasses.replace(_row(what, _median(took), "ms", took), cpu=cost)

    async def _list(self, **fields: Any) -> tasks_pb2.ListTasksResponse:
        request = tasks_pb2.ListTasksRequest(**fields)
        answer = await self._calls.tasks.ListTasks(request, timeout=_DEADLINE_SECONDS)
        assert isinstance(answer, tasks_pb2.ListTasksResponse)
        return answer

    async def _get(self, *, task: str) -> None:
        await self._calls.tasks.GetTask(tasks_pb2.GetTaskRequest(task=task))

    async def _delete(self, task: str) -> None:
        await self._calls.tasks.DeleteTask(tasks_pb2.DeleteTaskRequest(task=task))

    async def _read(
        self, *, task: str = str(LARGE), **fields: Any
    ) -> task_logs_pb2.GetTaskLogsResponse:
        request = task_logs_pb2.GetTaskLogsRequest(
            task=task, source=task_logs_pb2.LOG_SOURCE_SNAPSHOT, **fields
        )
        answer = await self._calls.logs.GetTaskLogs(request, timeout=_DEADLINE_SECONDS)
        assert isinstance(answer, task_logs_pb2.GetTaskLogsResponse)
        return answer

    async def _follow(self, *, until: str, **fields: Any) -> None:
        request = task_logs_pb2.FollowTaskLogsRequest(
            task=str(LARGE), source=task_logs_pb2.LOG_SOURCE_SNAPSHOT, **fields
        )
        call = self._calls.logs.FollowTaskLogs(request, timeout=_DEADLINE_SECONDS)
        async for message in call:
            if message.WhichOneof("event") == until:
                break
        call.cancel()


@asynccontextmanager
async def _serving(dsn: str, size: Size) -> AsyncIterator[Server]:
    # Above the default limit, the server would evict half of the log.
    limit = {"TASKLOGS_LOG_ENTRIES": str(2 * size.entries)}
    async with our_server(dsn, variables=limit) as server:
        yield server


@asynccontextmanager
async def _calls(server: Server) -> AsyncIterator[_Calls]:
    async with open_channel(server.address) as channel:
        yield _Calls(TasksStub(channel), TaskLogsStub(channel))


async def _start(dsn: str, size: Size) -> float:
    """Return the seconds from the start of the process until it serves."""
    began = time.perf_counter()
    async with _serving(dsn, size):
        return time.perf_counter() - began


async def _seconds(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


def _reads_meanwhile(what: str, milliseconds: list[float]) -> list[Result]:
    if len(milliseconds) < 2:
        return []
    slowest = statistics.quantiles(milliseconds, n=100)[-1]
    meanwhile = f"tail=30 of another task meanwhile ({what})"
    return [
        _row(f"{meanwhile}: median", _median(milliseconds), "ms"),
        _row(f"{meanwhile}: 99th percentile", slowest, "ms"),
    ]


def _row(what: str, figure: float, unit: str, figures: list[float] | None = None) -> Result:
    return Result(
        what=what,
        ours=figure,
        unit=unit,
        ratios=figures or [figure],
    )


def _median(figures: list[float]) -> float:
    return statistics.median(figures)


def _megabytes(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 1e6


def _peak_megabytes(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024 / 1e6
