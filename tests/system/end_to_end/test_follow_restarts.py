"""I8 with kills: the server is killed, Postgres is stopped and killed, and cursors stay valid."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc

from tasklogs.errors import TaskLogsRpcError
from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import tasks_pb2, types_pb2
from tests.cli.command import TASKLOGS
from tests.reads.follow_reader import reading
from tests.reads.follow_view import Key, View
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry, tail_delta
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.ports import lasting_port
from tests.support.fixtures.postgres import PostgresServer
from tests.support.fixtures.server import Server

_WAIT_SECONDS = 0.05


@dataclass
class Process:
    """A server process that a test can kill and start again at the same address."""

    dsn: str
    port: int
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            TASKLOGS,
            "serve",
            "--listen",
            f"127.0.0.1:{self.port}",
            "--database-url",
            self.dsn,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    async def kill(self) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def serving(dsn: str) -> AsyncIterator[tuple[Process, Server]]:
    port = lasting_port()
    process = Process(dsn, port)
    await process.start()
    options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]
    address = f"127.0.0.1:{port}"
    try:
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await channel.channel_ready()
            yield process, Server(address, dsn, channel)
    finally:
        await process.kill()


@dataclass
class Writer:
    """An agent that writes all the time, and after a break resumes from what is stored."""

    server: Server
    token: str
    appended: int = 0
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        while not self.stop.is_set():
            try:
                async with ScriptedAgent.connect(self.server, self.token) as agent:
                    await self._write(agent)
            except (TaskLogsRpcError, grpc.aio.AioRpcError, AssertionError, TimeoutError):
                await asyncio.sleep(_WAIT_SECONDS)

    async def _write(self, agent: ScriptedAgent) -> None:
        read = await read_log(self.server, tail=1)
        id_, length = -1, 0
        if read.logs:
            id_, length = read.logs[0].id, len(read.logs[0].content)
            agent.tail = read.logs[0].content.encode()
        if not agent.welcome.HasField("tail"):
            length = 100  # there is no entry to grow
        if read.epoch == 0:
            await agent.append(open_epoch=True)
        while not self.stop.is_set():
            self.appended += 1
            if length < 20:
                await agent.append(tail=tail_delta(id_, length, "x"))
                length += 1
            elif id_ % 10 == 9:
                await agent.append([log_entry(0, "a new epoch")], open_epoch=True)
                id_, length = 0, 11
            else:
                id_, length = id_ + 1, 3
                await agent.append([log_entry(id_, "new")])
            await agent.acked()
        await agent.goodbye()


async def read_log(
    server: Server, *, tail: int | None = None, epoch: int | None = None
) -> pb.GetTaskLogsResponse:
    return await server.logs.GetTaskLogs(
        pb.GetTaskLogsRequest(
            task="local/demo", source=pb.LOG_SOURCE_SNAPSHOT, tail=tail, epoch=epoch
        )
    )


async def follow(server: Server, view: View, until: Callable[[], bool], *, deltas: bool) -> int:
    """Follow through all interruptions until `until` is true. Return the number of streams."""
    streams = 0
    while not until():
        streams += 1
        request = pb.FollowTaskLogsRequest(
            task="local/demo", source=pb.LOG_SOURCE_SNAPSHOT, deltas=deltas, cursor=view.cursor
        )
        call = server.logs.FollowTaskLogs(request)
        try:
            async with reading(aiter(call), view) as reader:
                while not reader.ended:
                    if until():
                        break
                    await asyncio.sleep(_WAIT_SECONDS)
            if isinstance(reader.error, grpc.aio.AioRpcError):
                assert reader.error.code() is grpc.StatusCode.UNAVAILABLE, reader.error
                await asyncio.sleep(_WAIT_SECONDS)
        finally:
            call.cancel()
    return streams


async def whole_log(server: Server) -> tuple[int, dict[Key, types_pb2.TaskLogEntry]]:
    task = await server.tasks.GetTask(tasks_pb2.GetTaskRequest(task="local/demo"))
    entries = {
        (epoch, one.id): one
        for epoch in range(1, task.log.epoch + 1)
        for one in (await read_log(server, epoch=epoch)).logs
    }
    return task.log.revision, entries


async def through_deaths(postgres: PostgresServer, deaths: list[str]) -> None:
    async with serving(postgres.dsn()) as (process, server):
        made = await server.create_task()
        writer = Writer(server, made.agent_token)
        writing = asyncio.create_task(writer.run())
        final: list[int] = []
        views = [View(), View()]

        def done(view: View) -> Callable[[], bool]:
            return lambda: bool(final) and view.revision >= final[0]

        following = [
            asyncio.create_task(follow(server, view, done(view), deltas=index == 0))
            for index, view in enumerate(views)
        ]
        for death in deaths:
            await _written(writer, 60, writing, *following)
            if death == "server":
                await process.kill()
                await process.start()
            else:
                end = postgres.kill if death == "postgres killed" else postgres.stop
                await asyncio.to_thread(end)
                await asyncio.to_thread(postgres.start)
        await _written(writer, 60, writing, *following)
        writer.stop.set()
        await writing
        revision, stored = await whole_log(server)
        final.append(revision)
        async with asyncio.timeout(DEADLINE_SECONDS):
            streams = await asyncio.gather(*following)
        for view in views:
            view.check(stored)
        if "server" in deaths:
            assert min(streams) > 1


async def _written(writer: Writer, count: int, *running: Awaitable[object]) -> None:
    """Wait until `count` more appends were made. Fail if one of `running` ends."""
    goal = writer.appended + count
    # For each death anew: a busy machine takes a minute for all of them together.
    async with asyncio.timeout(DEADLINE_SECONDS):
        while writer.appended < goal:
            for one in running:
                assert isinstance(one, asyncio.Task)
                if one.done():
                    one.result()
                    raise AssertionError("a task ended too early")
            await asyncio.sleep(_WAIT_SECONDS)


async def test_follows_resume_exactly_where_a_killed_server_stopped(
    postgres_server: PostgresServer,
) -> None:
    await through_deaths(postgres_server, ["server"] * 3)


async def test_follows_survive_a_postgres_that_is_stopped_or_killed(
    postgres_server: PostgresServer,
) -> None:
    await through_deaths(postgres_server, ["postgres", "postgres killed", "server"])
