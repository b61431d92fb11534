"""A store that cannot keep up slows the agents down. Readers and memory are not affected.

To push for longer: TASKLOGS_TEST_PUSH_SECONDS=60.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import pytest

from tasklogs.v1 import task_logs_pb2 as pb
from tests.cli.command import TASKLOGS
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.conditions import until
from tests.support.fixtures.ports import lasting_port
from tests.support.fixtures.postgres import PostgresServer
from tests.support.fixtures.server import Server
from tests.system.end_to_end.load import reached
from tests.system.end_to_end.mass_reconnect import create_tasks
from tests.system.end_to_end.programs import program, serve_command
from tests.system.end_to_end.pushers import pushers

AGENTS = 100
PUSH_SECONDS = float(os.environ.get("TASKLOGS_TEST_PUSH_SECONDS", "6"))
COMMIT_SECONDS = 0.2
ENTRY_BYTES = 200_000
MIB = 1024 * 1024
INGEST_BYTES = 32 * MIB
# What the settings of this test allow in addition to the process's initial memory (docs/design.md,
# "Memory"), and what malloc keeps.
STREAM_BYTES = 256 * 1024
MALLOC_BYTES = 64 * MIB
GROWTH_BYTES = 3 * INGEST_BYTES + AGENTS * (STREAM_BYTES + 2 * ENTRY_BYTES) + MALLOC_BYTES


@pytest.mark.timeout(120 + 2 * PUSH_SECONDS)
async def test_a_slow_store_slows_agents_down_but_not_readers_of_other_tasks(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    port = lasting_port()
    address = f"127.0.0.1:{port}"
    dsn = postgres_server.dsn()
    [command, *options] = serve_command(port, dsn)
    assert command == str(TASKLOGS)
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(
            program(
                tmp_path / "server.log",
                *(sys.executable, "-m", "tests.system.end_to_end.slow_store", str(COMMIT_SECONDS)),
                *options,
                TASKLOGS_INGEST_BYTES=str(INGEST_BYTES),
            )
        )
        server = await stack.enter_async_context(reached(address, dsn))
        tokens = await create_tasks(server, AGENTS)
        quiet_task = await server.create_task("quiet")
        async with ScriptedAgent.connect(server, quiet_task.agent_token) as agent:
            entries = [log_entry(number, "x" * 2000) for number in range(30)]
            await agent.append(open_epoch=True, entries=entries)
            await agent.acked()
        quiet = await read_for(server, PUSH_SECONDS / 2)
        before = psutil.Process(process.pid).memory_info().rss

        crowd = await stack.enter_async_context(pushers(address, tokens, entry_bytes=ENTRY_BYTES))
        await until(lambda: crowd.acks >= AGENTS)
        watching = asyncio.create_task(highest_memory(process.pid))
        loaded = await read_for(server, PUSH_SECONDS)
        watching.cancel()
        highest = await watching

    print(  # noqa: T201 (the figures, for runs by hand)
        f"quiet: median {statistics.median(quiet) * 1000:.1f} ms, 95 %"
        f" {rank(quiet, 95) * 1000:.1f} ms; while {AGENTS} agents push: median"
        f" {statistics.median(loaded) * 1000:.1f} ms, 95 % {rank(loaded, 95) * 1000:.1f} ms;"
        f" {crowd.acks} acks; memory grew from {before / MIB:.0f} MiB to"
        f" {highest / MIB:.0f} MiB; the limit is {(before + GROWTH_BYTES) / MIB:.0f} MiB"
    )
    assert crowd.ends == []
    # No read waits for a commit. The rest of the delay is the CPU time that pushing takes.
    assert statistics.median(loaded) < statistics.median(quiet) + COMMIT_SECONDS / 2
    assert rank(loaded, 95) < rank(quiet, 95) + COMMIT_SECONDS
    assert highest < before + GROWTH_BYTES


def rank(figures: list[float], percent: int) -> float:
    return sorted(figures)[len(figures) * percent // 100]


async def read_for(server: Server, seconds: float) -> list[float]:
    """Read a task repeatedly. Return how long each read took."""
    took = []
    until_then = time.monotonic() + seconds
    while (began := time.monotonic()) < until_then:
        await server.logs.GetTaskLogs(
            pb.GetTaskLogsRequest(task="local/quiet", source=pb.LOG_SOURCE_SNAPSHOT), timeout=30
        )
        took.append(time.monotonic() - began)
        await asyncio.sleep(0.01)
    return took


async def highest_memory(pid: int) -> int:
    """Watch a process until cancelled. Return the most memory that it had."""
    process, highest = psutil.Process(pid), 0
    try:
        while True:
            highest = max(highest, int(process.memory_info().rss))
            await asyncio.sleep(0.1)
    except asyncio.CancelledError:
        return highest
