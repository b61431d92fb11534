"""Two replicas under load, of which one is killed or drained."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from tasklogs.connection.channel import open_channel
from tasklogs.errors import TaskLogsRpcError
from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import task_logs_pb2_grpc
from tests.support.fixtures.nats_cluster import nats_cluster
from tests.support.fixtures.ports import lasting_port
from tests.system.end_to_end.load import reached
from tests.system.end_to_end.mass_reconnect import create_tasks
from tests.system.end_to_end.programs import Program, program, serve_command
from tests.system.replicas.record import Outcome, Read, Record

_ROOT = Path(__file__).parents[3]
_CROWDS = 2
_READERS = 10
_READ_EVERY_SECONDS = 0.1
_READ_SECONDS = 20.0


async def lose_a_replica(
    directory: Path,
    dsn: str,
    *,
    tasks: int,
    bus: str = "postgres",
    is_killed: bool,
    say_seconds: float = 10.0,
    before_seconds: float = 10.0,
    after_seconds: float = 15.0,
    patience_seconds: float = 120.0,
    tell: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Let one of two replicas go, and return what that cost. `bus`: `postgres` or `nats`.

    Each task has an agent and a follower, and its agent says something every `say_seconds`.
    """
    record = Record()
    async with AsyncExitStack() as stack:
        replicas = await stack.enter_async_context(two_replicas(directory, dsn, bus))
        ports = [one.port for one in replicas]
        for port in ports:
            server = await stack.enter_async_context(reached(f"127.0.0.1:{port}", dsn))
        tokens = await create_tasks(server, tasks)
        listen = lasting_port()
        address = f"127.0.0.1:{listen}"
        balancer = await stack.enter_async_context(_balancer(listen, ports))
        crowds = [
            await stack.enter_async_context(
                _crowd(record, address, tokens[first::_CROWDS], first, say_seconds)
            )
            for first in range(_CROWDS)
        ]
        for number in range(_READERS):
            reading = asyncio.create_task(_read(record, address, number, tasks))
            stack.callback(reading.cancel)
        try:
            await _until(
                lambda: len(record.welcomes) == len(record.followed) == tasks, patience_seconds
            )
        finally:
            tell(f"{len(record.welcomes)} agents and {len(record.followed)} followers are there")
        await asyncio.sleep(before_seconds)

        gone_at = time.monotonic()
        if is_killed:
            await replicas[0].program.kill()
        else:
            assert balancer.stdin is not None
            balancer.stdin.write(f"out {ports[0]}\n".encode())
            await replicas[0].program.end()
        tell(f"the replica is gone after {time.monotonic() - gone_at:.2f} s")
        await asyncio.sleep(after_seconds)
        for crowd in crowds:
            assert crowd.stdin is not None
            crowd.stdin.write(b"silence\n")
        await asyncio.sleep(0.5)
        await _until(lambda: record.all_have_all(tasks), patience_seconds)
        return Outcome.of(record, gone_at)


@dataclass(frozen=True)
class Replica:
    """A server process."""

    port: int
    program: Program


@asynccontextmanager
async def two_replicas(directory: Path, dsn: str, bus: str) -> AsyncIterator[Sequence[Replica]]:
    """Start two servers on one database. `bus`: `postgres` or `nats`."""
    async with AsyncExitStack() as stack:
        if bus == "nats":
            bus = ",".join((await stack.enter_async_context(nats_cluster())).urls)
        ports = lasting_port(), lasting_port()
        yield [
            Replica(
                port,
                await stack.enter_async_context(
                    program(
                        directory / f"replica-{number}.log",
                        *serve_command(port, dsn),
                        TASKLOGS_BUS=bus,
                    )
                ),
            )
            for number, port in enumerate(ports)
        ]


@asynccontextmanager
async def crowd_at(address: str, tokens: Sequence[str]) -> AsyncIterator[Record]:
    """Run agents that say one thing, and their followers, at one server."""
    record = Record()
    async with _crowd(record, address, tokens, 0, 1e9):
        yield record


@asynccontextmanager
async def _crowd(
    record: Record, address: str, tokens: Sequence[str], first: int, say_seconds: float
) -> AsyncIterator[asyncio.subprocess.Process]:
    async with _process(
        "crowd", address, str(first), str(_CROWDS), str(say_seconds), hears=True
    ) as process:
        assert process.stdin is not None
        process.stdin.write("\n".join((*tokens, "say\n")).encode())
        assert process.stdout is not None
        hearing = asyncio.create_task(_hear(record, process.stdout))
        try:
            yield process
        finally:
            hearing.cancel()


def _balancer(
    listen: int, ports: Sequence[int]
) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
    return _process("balancer", str(listen), *map(str, ports))


@asynccontextmanager
async def _process(
    module: str, *arguments: str, hears: bool = False
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"tests.system.replicas.{module}", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE if hears else None,
        cwd=_ROOT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _hear(record: Record, lines: asyncio.StreamReader) -> None:
    while line := await lines.readline():
        record.heard(line.decode())


async def _read(record: Record, address: str, number: int, tasks: int) -> None:
    """Read live and stored logs in turn, over a connection of its own."""
    chance, is_live = random.Random(number), bool(number % 2)
    async with open_channel(address) as channel:
        stub = task_logs_pb2_grpc.TaskLogsStub(channel)
        while True:
            await asyncio.sleep(_READ_EVERY_SECONDS)
            began, ended, is_live = time.monotonic(), "OK", not is_live
            request = pb.GetTaskLogsRequest(
                task=f"local/t{chance.randrange(tasks)}",
                source=pb.LOG_SOURCE_LIVE if is_live else pb.LOG_SOURCE_SNAPSHOT,
            )
            try:
                await stub.GetTaskLogs(request, timeout=_READ_SECONDS)
            except grpc.aio.AioRpcError as error:
                ended = f"{error.code().name}/{TaskLogsRpcError.from_rpc_error(error).reason}"
            record.reads.append(Read(began, time.monotonic() - began, ended, is_live))


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
