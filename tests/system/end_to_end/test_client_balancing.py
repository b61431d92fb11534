"""A client that balances its reads itself over two servers, with the service config of the docs."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import grpc.aio
import pytest

from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import task_logs_pb2_grpc
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until
from tests.support.fixtures.ports import lasting_port
from tests.support.fixtures.postgres import PostgresServer
from tests.support.fixtures.refusals import refusal_of
from tests.support.fixtures.server import Server
from tests.system.end_to_end.load import reached
from tests.system.end_to_end.programs import program, serve_command

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"
REQUEST = pb.GetTaskLogsRequest(task="local/demo", source=pb.LOG_SOURCE_SNAPSHOT)


def documented() -> str:
    """Return the service config of the docs."""
    section = OPERATIONS.read_text().partition("### On Kubernetes")[2]
    return json.dumps(json.loads(section.partition("```json")[2].partition("```")[0]))


class Reader:
    """Reads all the time. `answers` counts how often each refusal came, and "OK"."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = task_logs_pb2_grpc.TaskLogsStub(channel)
        self.answers: Counter[str] = Counter()

    async def run(self) -> None:
        while True:
            try:
                await self._stub.GetTaskLogs(REQUEST, timeout=DEADLINE_SECONDS)
                self.answers["OK"] += 1
            except grpc.aio.AioRpcError as error:
                refusal = refusal_of(error)
                self.answers[f"{refusal.code.name}: {refusal.message}"] += 1
            await asyncio.sleep(0.01)

    async def more(self, reads: int = 20) -> None:
        """Wait until so many more reads were answered."""
        before = self.answers["OK"]
        await until(lambda: self.answers["OK"] >= before + reads)


@pytest.mark.timeout(300)  # it starts three servers
async def test_no_read_is_refused_while_one_server_is_drained_and_the_other_killed(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    dsn = postgres_server.dsn()
    ports = [lasting_port() for _ in range(2)]
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(
                program(
                    tmp_path / f"server-{port}.log",
                    *serve_command(port, dsn),
                    TASKLOGS_LOG_CALLS="all",
                )
            )
            for port in ports
        ]
        reachable: list[Server] = [
            await stack.enter_async_context(reached(f"127.0.0.1:{port}", dsn)) for port in ports
        ]
        await reachable[0].create_task(standalone=True)
        channel = await stack.enter_async_context(
            grpc.aio.insecure_channel(
                "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports),
                options=[
                    ("grpc.service_config", documented()),
                    ("grpc.use_local_subchannel_pool", 1),
                    ("grpc.max_reconnect_backoff_ms", 1000),
                ],
            )
        )
        reader = Reader(channel)
        reading = asyncio.create_task(reader.run())
        try:
            await reader.more()
            assert all("GetTaskLogs" in server.said for server in servers)
            await servers[0].end()
            await reader.more()
            answered = servers[0].said.count("GetTaskLogs")
            await servers[0].start()
            # The channel comes back to it after a wait of its own, which gRPC chooses.
            await until(lambda: servers[0].said.count("GetTaskLogs") > answered)
            await servers[1].kill()
            await reader.more()
        finally:
            reading.cancel()
            await asyncio.wait({reading})
    assert set(reader.answers) == {"OK"}
