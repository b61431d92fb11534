"""`tasklogs serve --workers 2`: workers are killed and freeze, and agents and follows go on."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest

from tests.reads.follow_view import View
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until
from tests.support.fixtures.server import Server
from tests.system.end_to_end.programs import Program, program, serve_command
from tests.system.end_to_end.test_follow_restarts import Writer, follow, whole_log

SERVING = re.compile(r"serving on (\S+);")
STARTED = re.compile(r"worker\.started .*pid=(\d+) worker=(\d+)")
RECONNECTS_SOON = [
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
]


@dataclass
class Service:
    """A supervisor and two workers."""

    program: Program
    address: str
    dsn: str

    def pids(self) -> dict[int, int]:
        """Return the process of each worker that serves or served last, by its number."""
        return {int(worker): int(pid) for pid, worker in STARTED.findall(self.program.said)}

    async def replaced(self, worker: int, former: int) -> None:
        await until(lambda: self.pids()[worker] != former)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Server]:
        async with grpc.aio.insecure_channel(self.address, options=RECONNECTS_SOON) as channel:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await channel.channel_ready()
            yield Server(self.address, self.dsn, channel)


@asynccontextmanager
async def serving(
    directory: Path, dsn: str, *options: str, **variables: str
) -> AsyncIterator[Service]:
    command = (*serve_command(0, dsn), "--workers=2", *options)
    async with program(directory / "service", *command, **variables) as running:
        children: list[psutil.Process] = []
        try:
            await until(lambda: bool(SERVING.search(running.said)) or not running.is_running)
            found = SERVING.search(running.said)
            assert found is not None, running.said
            children = psutil.Process(running.pid).children(recursive=True)
            yield Service(running, found[1], dsn)
        finally:
            if running.is_running:
                children += psutil.Process(running.pid).children(recursive=True)
                await running.end()
            for one in children:
                if one.is_running():
                    one.kill()


@dataclass
class Conversation:
    """An agent that writes all the time, and followers, each on a connection of its own."""

    writer: Writer
    views: list[View]
    tasks: list[asyncio.Task[object]]
    goal: list[int]

    async def goes_on(self, appends: int = 30) -> None:
        """Wait until the agent has stored more, and all followers have seen it."""
        wanted = self.writer.appended + appends
        revisions = [view.revision for view in self.views]

        def has_gone_on() -> bool:
            for one in self.tasks:
                if one.done():
                    one.result()
                    raise AssertionError("an agent or a follow ended too early")
            return self.writer.appended >= wanted and all(
                view.revision > before + appends // 2
                for view, before in zip(self.views, revisions, strict=True)
            )

        await until(has_gone_on)

    async def end(self, server: Server) -> None:
        """Compare what each follower has seen with what is stored."""
        self.writer.stop.set()
        await self.tasks[0]
        revision, stored = await whole_log(server)
        self.goal.append(revision)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await asyncio.gather(*self.tasks)
        for view in self.views:
            view.check(stored)


def has_seen(view: View, goal: list[int]) -> Callable[[], bool]:
    return lambda: bool(goal) and view.revision >= goal[0]


@asynccontextmanager
async def conversation(service: Service) -> AsyncIterator[Conversation]:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(service.connected()) for _ in range(5)]
        token = (await servers[0].create_task()).agent_token
        writer, goal = Writer(servers[0], token), list[int]()
        views = [View() for _ in servers[1:]]

        tasks: list[asyncio.Task[object]] = [
            asyncio.create_task(writer.run()),
            *(
                asyncio.create_task(follow(one, view, has_seen(view, goal), deltas=index == 0))
                for index, (one, view) in enumerate(zip(servers[1:], views, strict=True))
            ),
        ]
        try:
            talk = Conversation(writer, views, tasks, goal)
            await talk.goes_on()
            yield talk
            await talk.end(servers[0])
        finally:
            for one in tasks:
                one.cancel()
            await asyncio.wait(tasks)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_a_worker_that_dies_or_freezes_is_replaced_and_all_go_on(
    database: str, tmp_path: Path, number: signal.Signals
) -> None:
    async with (
        serving(tmp_path, database, TASKLOGS_WORKER_TIMEOUT="1") as service,
        conversation(service) as talk,
    ):
        for worker in (1, 2):  # the agent was at one of them
            former = service.pids()[worker]
            os.kill(former, number)
            await talk.goes_on()
            await service.replaced(worker, former)
            assert not psutil.pid_exists(former)
        await talk.goes_on()
