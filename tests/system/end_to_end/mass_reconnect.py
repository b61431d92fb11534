"""Many agents reconnect at once after a restart. Measures the time until every agent is welcome,
and what readers notice meanwhile.

    python -m tests.system.end_to_end.mass_reconnect --agents 2000

The agents are light: the real stream, the real channel and the real backoff, but no task app. They
run in processes of their own, and so does the server. Postgres is an embedded one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio

from tasklogs.agent.settings import Settings
from tasklogs.publish.channel import open_channel
from tasklogs.publish.reconnect import Backoff, StreamEnded
from tasklogs.publish.stream_status import StreamCall
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import task_agents_pb2_grpc, task_logs_pb2, task_logs_pb2_grpc, types_pb2
from tests.support.fixtures.ports import lasting_port
from tests.support.fixtures.postgres import PostgresServer
from tests.support.fixtures.server import Server
from tests.system.end_to_end.load import reached, reconnecting_channel
from tests.system.end_to_end.programs import Program, program, serve_command

_ROOT = Path(__file__).parents[3]
_CREATE_AT_ONCE = 50
_READERS = 20
_READ_EVERY_SECONDS = 0.05
_CALL_SECONDS = 30.0


@dataclass
class Read:
    """One read: the reader, when it began, how long it took, and its status."""

    reader: int
    began: float
    seconds: float
    code: grpc.StatusCode


@dataclass
class Outcome:
    """The result of a restart."""

    agents: int
    away_seconds: float
    """From the server's end to its first answer."""
    all_welcome_seconds: float
    """From the first answer to the last agent's Welcome."""
    half_welcome_seconds: float
    attempts: Counter[str]
    """How the streams of the agents ended, counted by status."""
    reads: Sequence[Read]
    """The reads between the first answer to that reader and the last Welcome."""

    def __str__(self) -> str:
        slow = sorted(one.seconds for one in self.reads if one.code is grpc.StatusCode.OK)
        codes = Counter(one.code.name for one in self.reads)
        rank = f"{slow[len(slow) // 2]:.3f} / {slow[len(slow) * 99 // 100]:.3f} / {slow[-1]:.3f}"
        return (
            f"{self.agents} agents, server away for {self.away_seconds:.2f} s: half welcome after"
            f" {self.half_welcome_seconds:.2f} s, all after {self.all_welcome_seconds:.2f} s"
            f" ({dict(self.attempts)}); reads meanwhile: {dict(codes)},"
            f" median / 99 % / longest {rank} s"
        )


@dataclass
class Crowd:
    """Agents in processes of their own, as this process sees them."""

    welcomes: dict[int, float] = field(default_factory=dict)
    """When each agent's last Welcome came (time.monotonic, the same clock in all processes)."""
    ends: list[tuple[float, str]] = field(default_factory=list)

    async def hear(self, lines: asyncio.StreamReader) -> None:
        while line := await lines.readline():
            at, what, detail = line.decode().split(maxsplit=2)
            if what == "welcome":
                self.welcomes[int(detail)] = float(at)
            else:
                self.ends.append((float(at), detail.strip()))

    def all_welcome_since(self, since: float, count: int) -> bool:
        return sum(when > since for when in self.welcomes.values()) == count


@asynccontextmanager
async def crowd(address: str, tokens: Sequence[str], processes: int = 2) -> AsyncIterator[Crowd]:
    """Run one agent for each token."""
    one = Crowd()
    async with AsyncExitStack() as stack:
        for number in range(processes):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.system.end_to_end.mass_reconnect"),
                *("--crowd", address, "--first", str(number), "--step", str(processes)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                cwd=_ROOT,
            )
            stack.push_async_callback(_kill, process)
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n".join(tokens[number::processes]).encode())
            await process.stdin.drain()
            process.stdin.close()
            hearing = asyncio.create_task(one.hear(process.stdout))
            stack.callback(hearing.cancel)
        yield one


async def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


class LightAgent:
    """An agent without a task app: it reports that it is healthy, and nothing else."""

    def __init__(self, number: int, address: str, token: str, settings: Settings) -> None:
        self._number = number
        self._address = address
        self._token = token
        self._settings = settings
        self._backoff = Backoff(settings, random.Random(f"agent {number}"))

    async def run(self) -> None:
        while True:
            try:
                await self._serve()
            except StreamEnded as ended:
                wait_seconds = self._backoff.wait_seconds(ended)
                self._say("end", f"{ended.code.name} {ended.info or '-'}")
                await asyncio.sleep(wait_seconds)

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
                self._say("welcome", str(self._number))
                state = pb.StateReport(
                    lifecycle=types_pb2.AGENT_LIFECYCLE_READY,
                    app_health=types_pb2.APP_HEALTH_HEALTHY,
                )
                await call.write(pb.AgentMessage(state=state))
                while isinstance(message := await call.read(), pb.ServerMessage):
                    if message.HasField("drain"):
                        after = message.drain.retry_after.ToTimedelta().total_seconds()
                        raise StreamEnded(
                            grpc.StatusCode.UNAVAILABLE, "", "DRAIN", after, was_welcome=True
                        )
                raise StreamEnded((await call.status()).code(), "ended", was_welcome=True)
            except TimeoutError:
                raise StreamEnded(grpc.StatusCode.DEADLINE_EXCEEDED, "no Welcome") from None
            except grpc.aio.AioRpcError as error:
                raise StreamEnded.of(error, was_welcome=was_welcome) from None
            finally:
                call.cancel()

    def _say(self, what: str, detail: str) -> None:
        sys.stdout.write(f"{time.monotonic()} {what} {detail}\n")
        sys.stdout.flush()


async def run_crowd(address: str, first: int, step: int) -> None:
    """Run as one of the processes of a crowd. The tokens come on stdin."""
    tokens = [line.strip() for line in sys.stdin]
    settings = Settings()
    await asyncio.gather(
        *(
            LightAgent(first + index * step, address, token, settings).run()
            for index, token in enumerate(tokens)
        )
    )


async def create_tasks(server: Server, count: int) -> list[str]:
    """Create standalone tasks `t0`, `t1` ...; return their agents' tokens."""
    tokens: list[str] = []
    for first in range(0, count, _CREATE_AT_ONCE):
        made = await asyncio.gather(
            *(
                server.create_task(f"t{number}", standalone=True)
                for number in range(first, min(count, first + _CREATE_AT_ONCE))
            )
        )
        tokens += [one.agent_token for one in made]
    return tokens


async def read_repeatedly(
    channel: grpc.aio.Channel, number: int, count: int, to: list[Read]
) -> None:
    stub = task_logs_pb2_grpc.TaskLogsStub(channel)
    chance = random.Random(number)
    while True:
        request = task_logs_pb2.GetTaskLogsRequest(
            task=f"local/t{chance.randrange(count)}", source=task_logs_pb2.LOG_SOURCE_SNAPSHOT
        )
        began, code = time.monotonic(), grpc.StatusCode.OK
        try:
            await stub.GetTaskLogs(request, timeout=_CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            code = error.code()
        to.append(Read(number, began, time.monotonic() - began, code))
        await asyncio.sleep(_READ_EVERY_SECONDS)


async def restarted(
    postgres: PostgresServer, said: Path, agents: int, *, killed: bool, patience_seconds: float
) -> Outcome:
    """Restart a server that has `count` agents connected. Return the result."""
    port = lasting_port()
    address = f"127.0.0.1:{port}"
    async with AsyncExitStack() as stack:
        process: Program = await stack.enter_async_context(
            program(said, *serve_command(port, postgres.dsn()))
        )
        server = await stack.enter_async_context(reached(address, postgres.dsn()))
        tokens = await create_tasks(server, agents)
        began = time.monotonic()
        many = await stack.enter_async_context(crowd(address, tokens))
        await _until_all_welcome(many, began, agents, patience_seconds)
        reads: list[Read] = []
        for number in range(_READERS):
            own = await stack.enter_async_context(reconnecting_channel(address))
            reading = asyncio.create_task(read_repeatedly(own, number, agents, reads))
            stack.callback(reading.cancel)

        ended_at = time.monotonic()
        await (process.kill() if killed else process.end())
        await process.start()
        await _until_answered(server.channel)
        answered_at = time.monotonic()
        await _until_all_welcome(many, ended_at, agents, patience_seconds)
        order = sorted(many.welcomes.values())
        return Outcome(
            agents=agents,
            away_seconds=answered_at - ended_at,
            all_welcome_seconds=order[-1] - answered_at,
            half_welcome_seconds=order[agents // 2] - answered_at,
            attempts=Counter(how for when, how in many.ends if when > ended_at),
            reads=[
                one
                for one in _once_connected(reads, ended_at)
                if answered_at <= one.began <= order[-1]
            ],
        )


def _once_connected(reads: Sequence[Read], since: float) -> Iterator[Read]:
    """Yield the reads that began after their channel had reached the server again."""
    connected: set[int] = set()
    for one in reads:
        if one.began > since and one.code is grpc.StatusCode.OK:
            connected.add(one.reader)
        if one.reader in connected:
            yield one


async def _until_all_welcome(many: Crowd, since: float, count: int, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not many.all_welcome_since(since, count):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def _until_answered(channel: grpc.aio.Channel) -> None:
    stub = task_logs_pb2_grpc.TaskLogsStub(channel)
    request = task_logs_pb2.GetTaskLogsRequest(
        task="local/t0", source=task_logs_pb2.LOG_SOURCE_SNAPSHOT
    )
    while True:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await stub.GetTaskLogs(request, timeout=_CALL_SECONDS)
            return
        await asyncio.sleep(0.02)


def _measure(agents: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        working = Path(directory)
        working.chmod(0o755)
        for killed in (False, True):
            data = working / ("killed" if killed else "ended")
            with PostgresServer(data) as postgres:
                postgres.start()
                outcome = asyncio.run(
                    restarted(
                        postgres,
                        working / "server.log",
                        agents,
                        killed=killed,
                        patience_seconds=120,
                    )
                )
            print("killed:" if killed else "stopped gracefully:", outcome)  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=2000)
    parser.add_argument("--crowd", help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--step", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.crowd:
        asyncio.run(run_crowd(options.crowd, options.first, options.step))
    else:
        _measure(options.agents)


if __name__ == "__main__":
    main()
