"""What a live read costs on a replica that does not hold the agent's stream.

    python -m tests.system.replicas.live_reads

The same task is read on both replicas in turn, by one caller at a time. It prints the medians, and
the ratio of each pair of reads that follow each other: other work slows both of a pair.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import grpc.aio

from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import task_logs_pb2_grpc
from tasklogs_server.store.migrate import migrate
from tests.support.fixtures import reaper
from tests.support.fixtures.postgres import PostgresServer
from tests.system.end_to_end.load import reached
from tests.system.end_to_end.mass_reconnect import create_tasks
from tests.system.replicas.run import crowd_at, two_replicas

_REQUEST = pb.GetTaskLogsRequest(task="local/t0", source=pb.LOG_SOURCE_LIVE)


async def measure(directory: Path, dsn: str, bus: str, pairs: int) -> tuple[float, float, float]:
    """Return the medians of a read here and elsewhere, in seconds, and the median ratio."""
    async with AsyncExitStack() as stack:
        replicas = await stack.enter_async_context(two_replicas(directory, dsn, bus))
        there, elsewhere = [
            await stack.enter_async_context(reached(f"127.0.0.1:{one.port}", dsn))
            for one in replicas
        ]
        tokens = await create_tasks(there, 1)
        await stack.enter_async_context(crowd_at(there.address, tokens))
        stubs = [task_logs_pb2_grpc.TaskLogsStub(one.channel) for one in (there, elsewhere)]
        for stub in stubs:
            await _until_live(stub)
        taken: tuple[list[float], list[float]] = ([], [])
        for number in range(2 * pairs):
            first = number % 2
            for index in (first, 1 - first):
                began = time.perf_counter()
                await stubs[index].GetTaskLogs(_REQUEST, timeout=30)
                taken[index].append(time.perf_counter() - began)
        here, away = (one[len(one) // 10 :] for one in taken)
        ratios = [two / one for one, two in zip(here, away, strict=True)]
        return statistics.median(here), statistics.median(away), statistics.median(ratios)


async def _until_live(stub: task_logs_pb2_grpc.TaskLogsStub) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await stub.GetTaskLogs(_REQUEST, timeout=10)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.1)
            else:
                return


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.system.replicas.live_reads", description=__doc__
    )
    parser.add_argument("--bus", choices=("postgres", "nats"), nargs="*")
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for _ in range(options.rounds):
        for bus in options.bus or ("postgres", "nats"):
            with tempfile.TemporaryDirectory(prefix="tasklogs-replicas-") as name:
                directory = Path(name)
                with PostgresServer(directory / "postgres") as postgres:
                    postgres.start()
                    postgres.run(migrate(postgres.dsn()))
                    here, away, ratio = asyncio.run(
                        measure(directory, postgres.dsn(), bus, options.pairs)
                    )
            print(  # noqa: T201
                f"{bus}: {here * 1000:.2f} ms here, {away * 1000:.2f} ms elsewhere,"
                f" ratio {ratio:.2f}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    reaper.start()
    sys.exit(main())
