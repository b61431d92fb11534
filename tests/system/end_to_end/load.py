"""Puts a server under load: readers on many connections, followers, agents with busy task apps.

Everything keeps the answers that it got, so that a test can look at each status.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import grpc
import grpc.aio

from tasklogs.agent.run import Agent, Options
from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import task_logs_pb2_grpc, tasks_pb2
from tests.support.fakes.task_app import FakeTaskApp
from tests.support.fixtures.conditions import until
from tests.support.fixtures.refusals import Refusal, refusal_of
from tests.support.fixtures.server import Server

_PAUSE_SECONDS = 0.02
_CALL_SECONDS = 30.0
_OPTIONS = [
    # Each channel has its own connection and reconnects soon, as the client library's does.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
]


@asynccontextmanager
async def reconnecting_channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        yield channel


@asynccontextmanager
async def reached(address: str, dsn: str) -> AsyncIterator[Server]:
    """Connect to a server process as soon as it listens. It may restart at the same address."""
    async with reconnecting_channel(address) as channel:
        await channel.channel_ready()
        yield Server(address, dsn, channel)


@dataclass(frozen=True)
class Answer:
    """How a call went. `refusal` is None if it was answered. Times are those of time.monotonic."""

    began: float
    seconds: float
    refusal: Refusal | None


@dataclass
class Talker:
    """A task with its agent and a task app that keeps talking."""

    task: str
    app: FakeTaskApp
    said: int = 0

    async def talk(self, every_seconds: float) -> None:
        while True:
            self.said += 1
            self.app.say("user" if self.said % 2 else "agent", f"message {self.said}")
            await asyncio.sleep(every_seconds / 2)
            self.app.grow(", and more")
            await asyncio.sleep(every_seconds / 2)


@dataclass
class Load:
    """Everything that is working, and the answers that it got."""

    address: str
    talkers: list[Talker] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    ends: list[Refusal] = field(default_factory=list)
    """How follows ended, except those that the follower left."""
    followed: dict[str, int] = field(default_factory=dict)
    """The latest entry of each task that any of its followers received."""
    _working: set[asyncio.Task[None]] = field(default_factory=set)
    _talking: set[asyncio.Task[None]] = field(default_factory=set)

    def check(self) -> None:
        """Fail if any worker has stopped."""
        for task in self._working:
            if task.done():
                task.result()

    async def stop_talking(self) -> None:
        """Make every task app stop talking."""
        self._working -= self._talking
        await _cancel(self._talking)

    def between(self, start: float, end: float) -> list[Answer]:
        """Return the answers of the calls that began in this time."""
        return [one for one in self.answers if start <= one.began < end]

    def start(self, work: asyncio.Task[None], *, talks: bool = False) -> None:
        self._working.add(work)
        if talks:
            self._talking.add(work)

    async def stop(self) -> None:
        await _cancel(self._working | self._talking)

    async def read_repeatedly(self, channel: grpc.aio.Channel, task: str, *, patient: bool) -> None:
        """Read live in a loop."""
        stub = task_logs_pb2_grpc.TaskLogsStub(channel)
        while True:
            began = time.monotonic()
            refusal = None
            try:
                await stub.GetTaskLogs(pb.GetTaskLogsRequest(task=task), timeout=_CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                refusal = refusal_of(error)
            self.answers.append(Answer(began, time.monotonic() - began, refusal))
            await asyncio.sleep(_pause_after(refusal, patient=patient))

    async def follow_repeatedly(
        self, channel: grpc.aio.Channel, task: str, *, patient: bool
    ) -> None:
        """Follow, and resume from the last cursor each time the stream ends."""
        stub = task_logs_pb2_grpc.TaskLogsStub(channel)
        cursor = ""
        while True:
            call = stub.FollowTaskLogs(pb.FollowTaskLogsRequest(task=task, cursor=cursor))
            try:
                async for message in call:
                    cursor = message.cursor
                    for entry in message.entries.logs:
                        self.followed[task] = max(self.followed.get(task, -1), entry.id)
            except grpc.aio.AioRpcError as error:
                self.ends.append(refusal_of(error))
            await asyncio.sleep(_pause_after(self.ends[-1], patient=patient))


def _pause_after(refusal: Refusal | None, *, patient: bool) -> float:
    if patient and refusal is not None and refusal.retry_seconds is not None:
        return refusal.retry_seconds
    return _PAUSE_SECONDS


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def loaded(
    server: Server, *, tasks: int, readers: int, followers: int, connections: int, patient: bool
) -> AsyncIterator[Load]:
    """Put a server under load. The server may stop and come back at the same address.

    patient: callers wait as long as RetryInfo says, as the contract asks of them.
    """
    load = Load(server.address)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(load.stop)
        for number in range(tasks):
            made = await server.create_task(f"t{number}", standalone=True)
            app = await stack.enter_async_context(FakeTaskApp())
            app.become_ready()
            agent = Agent(Options(server.address, made.agent_token, app.url))
            talker = Talker(made.task.id, app)
            load.talkers.append(talker)
            load.start(asyncio.create_task(agent.run(), name=f"agent {number}"))
            talking = asyncio.create_task(talker.talk(0.2), name=f"task app {number}")
            load.start(talking, talks=True)
        for talker in load.talkers:
            await until(lambda one=talker: is_live(server, one))  # type: ignore[misc]
        channels = [
            await stack.enter_async_context(reconnecting_channel(server.address))
            for _ in range(connections)
        ]
        for number in range(readers + followers):
            channel, talker = channels[number % connections], load.talkers[number % tasks]
            work = load.read_repeatedly if number < readers else load.follow_repeatedly
            calling = work(channel, talker.task, patient=patient)
            load.start(asyncio.create_task(calling, name=f"caller {number}"))
        yield load
        load.check()


async def is_live(server: Server, talker: Talker) -> bool:
    """Whether the task can be read live and the read shows what its task app shows."""
    shown = talker.app.tail.id
    try:
        read = await server.logs.GetTaskLogs(
            pb.GetTaskLogsRequest(task=talker.task, tail=1), timeout=5
        )
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False
    return not read.snapshot and bool(read.logs) and read.logs[0].id >= shown


async def everything_works(server: Server, load: Load, is_serving: Callable[[], bool]) -> None:
    """Wait until health, every agent, every live read and the followers of every task are back."""
    latest = {one.task: one.app.tail.id for one in load.talkers}
    await until(is_serving)
    for talker in load.talkers:
        await until(lambda one=talker: is_live(server, one))  # type: ignore[misc]
    await until(lambda: all(load.followed.get(task, -1) >= id_ for task, id_ in latest.items()))


async def nothing_is_lost(server: Server, load: Load) -> None:
    """Fail if the store lacks anything that a task app shows. Stops the talking first."""
    await load.stop_talking()
    for talker in load.talkers:
        read = await server.logs.GetTaskLogs(pb.GetTaskLogsRequest(task=talker.task), timeout=20)
        logs, token = list(read.logs), read.next_page_token
        while token:
            more = await server.logs.GetTaskLogs(
                pb.GetTaskLogsRequest(task=talker.task, page_token=token)
            )
            logs, token = logs + list(more.logs), more.next_page_token
        assert [(one.id, one.content) for one in logs] == [
            (one.id, one.content) for one in talker.app.messages
        ]
        task = await server.tasks.GetTask(tasks_pb2.GetTaskRequest(task=talker.task))
        assert task.log.epoch == read.epoch
