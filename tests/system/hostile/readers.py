"""Honest readers. Each asks at fixed times, and records how late the correct answer came."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import types_pb2
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.system.hostile.served import HONEST, Served, User, make_active

STORED, LIVE, FOLLOW, APPEND = "stored", "live", "follow", "append"
KINDS = (STORED, LIVE, FOLLOW, APPEND)

_STORED_READERS, _STORED_SECONDS = 4, 0.03
_LIVE_READERS, _LIVE_SECONDS = 2, 0.06
_CHANGE_SECONDS = 0.03
# For one reader. All together send fewer calls than the server works on at once.
_AT_ONCE = 20
_CALL_SECONDS = DEADLINE_SECONDS
_ENTRIES, _ENTRY_TEXT = 30, "an honest line of an agent's answer. " * 60


@dataclass
class Latencies:
    """Seconds from the time a call was due to its correct answer, by kind of call."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    failures: list[str] = field(default_factory=list)

    def add(self, more: Latencies) -> None:
        """Add what another round noted."""
        for kind, seconds in more.seconds.items():
            self.seconds[kind] += seconds
        self.failures += more.failures


@dataclass(frozen=True)
class Reader:
    """A user, and the id of the task that it reads."""

    user: User
    task: str


class Readers:
    """A set of readers, and the agents whose logs they read."""

    def __init__(
        self, stored: list[Reader], live: list[Reader], follower: Reader, agent: ScriptedAgent
    ) -> None:
        self._stored = stored
        self._live = live
        self._follower = follower
        self._agent = agent
        self._changes = 0

    async def read_for(self, seconds: float) -> Latencies:
        """Let all of them read for this long."""
        noted = Latencies()
        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for number, reader in enumerate(self._stored):
                offset = _STORED_SECONDS * number / len(self._stored)
                read = _reading(reader, pb.LOG_SOURCE_SNAPSHOT)
                group.create_task(_at(noted, STORED, read, _STORED_SECONDS, until, offset))
            for number, reader in enumerate(self._live):
                offset = _LIVE_SECONDS * number / len(self._live)
                read = _reading(reader, pb.LOG_SOURCE_LIVE)
                group.create_task(_at(noted, LIVE, read, _LIVE_SECONDS, until, offset))
            group.create_task(self._follow(noted, until))
        return noted

    async def _follow(self, noted: Latencies, until: float) -> None:
        """Change the tail at fixed times, or later if the change before is not acknowledged.

        A change counts when the follower has received it.
        """
        user = self._follower.user
        request = pb.FollowTaskLogsRequest(task=self._follower.task, tail=0)
        call = user.logs.FollowTaskLogs(request, metadata=user.metadata)
        due: dict[str, float] = {}
        caught_up, all_seen = asyncio.Event(), asyncio.Event()

        async def listen() -> None:
            while isinstance(message := await call.read(), pb.FollowTaskLogsResponse):
                if message.HasField("caught_up"):
                    caught_up.set()
                for entry in message.entries.logs:
                    if (due_at := due.pop(entry.content, None)) is not None:
                        noted.seconds[FOLLOW].append(time.monotonic() - due_at)
                        if not due:
                            all_seen.set()

        listening = asyncio.create_task(listen())
        # The end of either task ends the other.
        listening.add_done_callback(lambda _: caught_up.set())
        listening.add_done_callback(lambda _: all_seen.set())
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                await caught_up.wait()
                _raise_what_ended(listening)
                due_at = time.monotonic()
                while (due_at := max(due_at + _CHANGE_SECONDS, time.monotonic())) < until:
                    await asyncio.sleep(max(0.0, due_at - time.monotonic()))
                    self._changes += 1
                    text = f"change {self._changes}"
                    due[text] = due_at
                    all_seen.clear()
                    # Wait for each ack: otherwise changes would be coalesced.
                    await self._agent.append([log_entry(0, text)])
                    await self._agent.acked()
                    noted.seconds[APPEND].append(time.monotonic() - due_at)
                if due:  # there may have been no time for even one
                    await all_seen.wait()
                _raise_what_ended(listening)
        except (TimeoutError, AssertionError, grpc.aio.AioRpcError) as error:
            where = f"{len(due)} changes unseen, caught up: {caught_up.is_set()}"
            what = error.code().name if isinstance(error, grpc.aio.AioRpcError) else repr(error)
            noted.failures.append(f"follow: {what}, {where}")
        finally:
            call.cancel()
            await asyncio.gather(listening, return_exceptions=True)


def _reading(reader: Reader, source: pb.LogSource.ValueType) -> Callable[[], Awaitable[None]]:
    request = pb.GetTaskLogsRequest(task=reader.task, source=source)

    async def read() -> None:
        answer = await reader.user.logs.GetTaskLogs(
            request, metadata=reader.user.metadata, timeout=_CALL_SECONDS
        )
        _check([one.content for one in answer.logs[:_ENTRIES]], answer.snapshot, source)

    return read


def _raise_what_ended(listening: asyncio.Task[None]) -> None:
    if listening.done():
        listening.result()
        raise AssertionError("the stream ended")


async def _at(
    noted: Latencies,
    kind: str,
    read: Callable[[], Awaitable[None]],
    every_seconds: float,
    until: float,
    offset: float,
) -> None:
    slots = asyncio.Semaphore(_AT_ONCE)

    async def ask(due: float) -> None:
        try:
            await read()
        except grpc.aio.AioRpcError as error:
            noted.failures.append(f"{kind}: {error.code().name} {error.details()}")
        except AssertionError as error:
            noted.failures.append(f"{kind}: {error}")
        # Measured from when the call was due, so that a stalled server is not asked less often.
        noted.seconds[kind].append(time.monotonic() - due)
        slots.release()

    due = time.monotonic() + offset
    async with asyncio.TaskGroup() as asking:
        while due < until:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            # A late answer delays neither the next call nor the end of the test.
            await slots.acquire()
            asking.create_task(ask(due))
            due += every_seconds


def _check(contents: list[str], is_snapshot: bool, source: pb.LogSource.ValueType) -> None:
    assert contents == [_text(number) for number in range(_ENTRIES)], "not the stored log"
    assert is_snapshot == (source == pb.LOG_SOURCE_SNAPSHOT), "from another source"


def _text(number: int) -> str:
    return f"{number}: {_ENTRY_TEXT}"


@asynccontextmanager
async def readers(served: Served) -> AsyncIterator[Readers]:
    """Run readers, each on its own connection, as its own user and with its own task."""
    async with AsyncExitStack() as stack:
        made = itertools.count()

        async def user(subject: str) -> User:
            user = await stack.enter_async_context(served.user(subject))
            # A connection without a call is closed after a while. While attackers occupy all
            # connections, its user could not connect again.
            stack.callback(_watch_health(user).cancel)
            return user

        async def reader(first: Sequence[types_pb2.TaskLogEntry]) -> tuple[Reader, ScriptedAgent]:
            subject = f"{HONEST}-{next(made)}"
            reading = await user(subject)
            created = await reading.create_task(f"of-{subject}")
            await make_active(reading, created.task.id)
            agent = await stack.enter_async_context(
                ScriptedAgent.connect(await user(subject), created.agent_token)
            )
            await agent.append(first, open_epoch=True)
            await agent.acked()
            agent.answer_syncs()
            return Reader(reading, created.task.id), agent

        entries = [log_entry(number, _text(number)) for number in range(_ENTRIES)]
        stored = [(await reader(entries))[0] for _ in range(_STORED_READERS)]
        live = [(await reader(entries))[0] for _ in range(_LIVE_READERS)]
        follower, agent = await reader([log_entry(0, "change 0")])
        yield Readers(stored, live, follower, agent)


def _watch_health(user: User) -> grpc.aio.UnaryStreamCall[Any, Any]:
    stub: Any = health_pb2_grpc.HealthStub(user.channel)
    watch: grpc.aio.UnaryStreamCall[Any, Any] = stub.Watch(health_pb2.HealthCheckRequest())
    return watch
