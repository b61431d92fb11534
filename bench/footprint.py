"""Memory per idle stream, and the time of `tasklogs --help`."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from pathlib import Path

import psutil

from bench.clients import together
from bench.processes import Server, bare_server, our_server
from bench.result import Result
from bench.rounds import interleave
from bench.stage import CLIENTS, Stage


async def idle_streams(stage: Stage) -> list[Result]:
    """Resident memory per stream, with one connection each. The first ones warm up.

    Uses servers of its own: memory that earlier load has freed would hide the growth.
    """
    count = 60 if stage.quick else 500
    ours: list[float] = []
    bare: list[float] = []
    for _ in range(1 if stage.quick else 3):
        async with our_server(stage.dsn) as server:
            ours.append(await _agents_cost(stage, server, count))
        async with bare_server(stage.dsn, constant_bytes=1) as server:
            bare.append(await _bare_cost(stage, server, count))
    figure = statistics.median(ours)
    return [
        Result(
            what=f"server memory per idle agent stream ({count} streams, plain)",
            ours=figure,
            bare=statistics.median(bare),
            unit="KB",
            ratios=ours,
            target=60,
            at_most=True,
            note="bare: a handler that only awaits; the spread is of our KB",
        )
    ]


async def help_page(stage: Stage) -> list[Result]:
    """`tasklogs --help`, against a Python that does nothing."""
    command = str(Path(sys.executable).with_name("tasklogs"))

    async def ours() -> float:
        return 1 / await _wall_seconds(command, "--help")

    async def bare() -> float:
        return 1 / await _wall_seconds(sys.executable, "-c", "pass")

    rounds = await interleave({"ours": ours, "bare": bare}, 3 if stage.quick else 15)
    comparison = rounds.compare_times("ours", "bare", per_second=1)
    return [
        Result(
            what="`tasklogs --help`, against `python -c pass`",
            ours=comparison.ours,
            bare=comparison.bare,
            unit="s",
            ratios=[1 / rate for rate in rounds.rates("ours")],
            target=0.3,
            at_most=True,
            note=f"{comparison.ratio:.1f} times; the spread is of our seconds",
        )
    ]


async def _agents_cost(stage: Stage, server: Server, count: int) -> float:
    warm = count // 5
    tasks = await stage.create_tasks(warm + count, standalone=True, server=server)

    async def connect(first: int, end: int) -> None:
        tokens = [task.token for task in tasks[first:end]]
        await together(
            [
                client.do("open_agents", address=server.address, tokens=tokens[number::CLIENTS])
                for number, client in enumerate(stage.clients)
            ]
        )

    try:
        await connect(0, warm)
        before = await _settled_bytes(server.pid)
        await connect(warm, warm + count)
        return (await _settled_bytes(server.pid) - before) / count / 1000
    finally:
        for client in stage.clients:
            await client.do("close_agents")


async def _bare_cost(stage: Stage, server: Server, count: int) -> float:
    client, warm = stage.clients[0], count // 5
    arguments = {"address": server.address, "method": "/bench.Bare/Idle"}
    try:
        await client.do("open_idle", count=warm, **arguments)
        before = await _settled_bytes(server.pid)
        await client.do("open_idle", count=count, **arguments)
        return (await _settled_bytes(server.pid) - before) / count / 1000
    finally:
        await client.do("close_agents")


async def _settled_bytes(pid: int) -> int:
    """Wait until resident memory stops growing, and return it."""
    process = psutil.Process(pid)
    seen = -1
    while (now := process.memory_info().rss) != seen:
        seen = now
        await asyncio.sleep(0.5)
    return int(now)


async def _wall_seconds(*command: str) -> float:
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    if await process.wait() != 0:
        raise RuntimeError(f"{command[0]} failed")
    return time.perf_counter() - began
