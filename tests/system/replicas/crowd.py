"""Agents and followers in a process of their own. Each has an entry to say now and then.

    python -m tests.system.replicas.crowd ADDRESS FIRST STEP SAY_SECONDS

The lines of stdin are the agents' tokens: of tasks FIRST, FIRST + STEP and so on. A line `say` ends
them, and each later line makes the agents say no more. What happens is told on stdout, a line each:
the time (of time.monotonic), what, the task's number, and more.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from itertools import takewhile

import grpc
import grpc.aio

from tasklogs import TaskLogsClient
from tasklogs.agent.settings import Settings
from tasklogs.client.events import CaughtUp, EntriesChanged, Reconnected, Reconnecting
from tasklogs.errors import TaskLogsRpcError
from tasklogs.publish.channel import open_channel
from tasklogs.publish.reconnect import Backoff, StreamEnded
from tasklogs.publish.stream_status import StreamCall
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import task_agents_pb2_grpc, types_pb2

# As many as one connection of a front end would carry.
_FOLLOWS_OF_A_CLIENT = 20
_CONTENT = "x" * 200
_START_SPREAD_SECONDS = 5.0


def say(what: str, number: int, detail: object = "-") -> None:
    sys.stdout.write(f"{time.monotonic()} {what} {number} {detail}\n")


class TalkingAgent:
    """The real stream, channel and backoff. The conversation is a count: entry k has the id k."""

    def __init__(self, number: int, address: str, token: str, settings: Settings) -> None:
        self._number = number
        self._address = address
        self._token = token
        self._settings = settings
        self._backoff = Backoff(settings, random.Random(f"agent {number}"))
        self._said = 0
        self._more = asyncio.Event()
        # gRPC fails a write that begins during another one.
        self._writing = asyncio.Lock()

    def speak(self) -> None:
        """Add an entry to the conversation."""
        self._said += 1
        self._more.set()
        say("said", self._number, self._said)

    async def run(self) -> None:
        """Connect again and again, until cancelled."""
        while True:
            try:
                await self._serve()
            except StreamEnded as ended:
                say("agent_lost", self._number, f"{ended.code.name}/{ended.info or ended.reason}")
                await asyncio.sleep(self._backoff.wait_seconds(ended))

    async def _serve(self) -> None:
        async with open_channel(self._address, self._settings) as channel:
            metadata = (("authorization", f"Bearer {self._token}"),)
            stub = task_agents_pb2_grpc.TaskAgentsStub(channel)
            call, was_welcome = StreamCall(stub.Connect(None, metadata=metadata)), False
            try:
                async with asyncio.timeout(self._settings.welcome_timeout_seconds):
                    await call.write(pb.AgentMessage(hello=pb.Hello(agent_version="light")))
                    first = await call.read()
                if not isinstance(first, pb.ServerMessage):
                    raise StreamEnded((await call.status()).code(), "no Welcome")
                was_welcome = True
                say("welcome", self._number)
                sending = asyncio.create_task(self._send(call, first.welcome))
                try:
                    await self._answer(call)
                finally:
                    sending.cancel()
                    with suppress(asyncio.CancelledError, grpc.aio.AioRpcError, StreamEnded):
                        await sending
                raise StreamEnded((await call.status()).code(), "ended", was_welcome=True)
            except TimeoutError:
                raise StreamEnded(grpc.StatusCode.DEADLINE_EXCEEDED, "no Welcome") from None
            except grpc.aio.AioRpcError as error:
                raise StreamEnded.of(error, was_welcome=was_welcome) from None
            finally:
                call.cancel()

    async def _write(self, call: StreamCall, message: pb.AgentMessage) -> None:
        async with self._writing:
            await call.write(message)

    async def _send(self, call: StreamCall, welcome: pb.Welcome) -> None:
        state = pb.StateReport(
            lifecycle=types_pb2.AGENT_LIFECYCLE_READY, app_health=types_pb2.APP_HEALTH_HEALTHY
        )
        await self._write(call, pb.AgentMessage(state=state))
        sequence, sent, opens = 0, welcome.entries, welcome.epoch == 0
        while True:
            if sent < self._said:
                sequence += 1
                append = pb.LogAppend(
                    sequence=sequence,
                    open_epoch=opens,
                    entries=[_entry(number) for number in range(sent, self._said)],
                )
                sent, opens = self._said, False
                await self._write(call, pb.AgentMessage(append=append))
            self._more.clear()
            await self._more.wait()

    async def _answer(self, call: StreamCall) -> None:
        while isinstance(message := await call.read(), pb.ServerMessage):
            if message.HasField("drain"):
                after = message.drain.retry_after.ToTimedelta().total_seconds()
                raise StreamEnded(grpc.StatusCode.UNAVAILABLE, "", "DRAIN", after, was_welcome=True)
            if message.HasField("sync"):
                done = pb.SyncDone(id=message.sync.id)
                await self._write(call, pb.AgentMessage(sync_done=done))


def _entry(number: int) -> types_pb2.TaskLogEntry:
    entry = types_pb2.TaskLogEntry(
        id=number, type=types_pb2.TASK_LOG_TYPE_OUTPUT, content=f"{number} {_CONTENT}"
    )
    entry.time.seconds = 1_700_000_000 + number
    return entry


async def follow(client: TaskLogsClient, number: int) -> None:
    """Follow a task, and tell what comes."""

    def reconnect(event: Reconnecting | Reconnected) -> None:
        if isinstance(event, Reconnected):
            say("followed", number)
        else:
            say("follow_lost", number, f"{event.error.code.name}/{event.error.reason or '-'}")

    while True:
        try:
            async for event in client.follow(f"local/t{number}", on_reconnect=reconnect):
                if isinstance(event, CaughtUp):
                    say("followed", number)
                elif isinstance(event, EntriesChanged):
                    for entry in event.entries:
                        say("got", number, entry.id)
        except TaskLogsRpcError as error:
            # The library leaves it to the program to repeat a first call that was refused.
            if error.retry_after is None:
                raise
            await asyncio.sleep(error.retry_after.total_seconds())


async def _speak_in_turn(agents: list[TalkingAgent], every_seconds: float) -> None:
    """Let each agent speak once in this time, at times that are spread evenly."""
    while True:
        for agent in agents:
            agent.speak()
            await asyncio.sleep(every_seconds / len(agents))


async def main() -> None:
    """Run until killed."""
    address = sys.argv[1]
    first, step, say_seconds = (float(one) for one in sys.argv[2:])
    loop = asyncio.get_running_loop()
    lines = iter(sys.stdin.readline, "")
    settings = Settings()
    numbers = range(int(first), sys.maxsize, int(step))
    agents = [
        TalkingAgent(number, address, token, settings)
        for number, token in zip(numbers, _tokens(lines), strict=False)
    ]
    async with AsyncExitStack() as stack:
        working: list[asyncio.Task[None]] = []
        clients: list[TaskLogsClient] = []
        for index, agent in enumerate(agents):
            if index % _FOLLOWS_OF_A_CLIENT == 0:
                clients.append(await stack.enter_async_context(TaskLogsClient(address)))
            working.append(asyncio.create_task(agent.run()))
            working.append(asyncio.create_task(follow(clients[-1], numbers[index])))
            await asyncio.sleep(_START_SPREAD_SECONDS / len(agents))
        talking = asyncio.create_task(_speak_in_turn(agents, say_seconds))
        flushing = asyncio.create_task(_flush())
        ended = loop.run_in_executor(None, sys.stdin.readline)
        done, _ = await asyncio.wait(
            [*working, talking, flushing, ended], return_when=asyncio.FIRST_COMPLETED
        )
        talking.cancel()
        if ended not in done:
            for one in done:
                one.result()
        await asyncio.gather(*working)


def _tokens(lines: Iterator[str]) -> Iterator[str]:
    return (line.strip() for line in takewhile(lambda line: line != "say\n", lines))


async def _flush() -> None:
    while True:
        await asyncio.sleep(0.05)
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
