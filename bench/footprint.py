"""Memory per idle stream, and the time of `tasklogs --help`."""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from bench.clients import together
from bench.processes import Server, bare_server, our_server
from bench.result import Result
from bench.rounds import interleave
from bench.stage import CLIENTS, Stage
from tests.support.fixtures.certificates import Authority


async def idle_streams(stage: Stage) -> list[Result]:
    """Resident memory per stream, with one connection each. The first ones warm up.

    Uses servers of its own: memory that earlier load has freed would hide the growth.
    """
    count = idle_count(stage)
    plain: list[float] = []
    tls: list[float] = []
    bare: list[float] = []
    for _ in range(1 if stage.quick else 3):
        async with our_server(stage.dsn) as server:
            plain.append(await _agents_cost(stage, server, count))
        async with tls_server(stage.dsn) as (server, ca):
            tls.append(await _agents_cost(stage, server, count, ca=ca))
        async with bare_server(stage.dsn, constant_bytes=1) as server:
            bare.append(await _bare_cost(stage, server, count))
    what = f"server memory per idle agent stream ({count} streams, {{}})"
    return [
        memory_row(what.format("plain"), plain, target=60, bare=statistics.median(bare)),
        memory_row(what.format("TLS"), tls, target=100),
    ]


def idle_count(stage: Stage) -> int:
    """Return how many idle streams are measured, beside a fifth as many that warm up."""
    return 60 if stage.quick else 500


def memory_row(
    what: str, figures: list[float], *, target: float, bare: float | None = None
) -> Result:
    """Make a row of KB per stream."""
    return Result(
        what=what,
        ours=statistics.median(figures),
        bare=bare,
        unit="KB",
        ratios=figures,
        target=target,
        at_most=True,
        note=("" if bare is None else "bare: a handler that only awaits; ")
        + "the spread is of our KB",
    )


@asynccontextmanager
async def tls_server(dsn: str) -> AsyncIterator[tuple[Server, str]]:
    """Run a server with TLS. Yields it, and the file of the authority of its certificate."""
    with tempfile.TemporaryDirectory(prefix="tasklogs-bench-") as directory:
        authority = Authority(Path(directory))
        pair = authority.issue("server")
        variables = {
            "TASKLOGS_TLS_CERT": str(pair.certificate),
            "TASKLOGS_TLS_KEY": str(pair.key),
        }
        async with our_server(dsn, variables=variables) as server:
            yield server, str(authority.ca)


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


async def _agents_cost(stage: Stage, server: Server, count: int, *, ca: str = "") -> float:
    warm = count // 5
    tasks = await stage.create_tasks(warm + count, standalone=True)

    async def connect(first: int, end: int) -> None:
        tokens = [task.token for task in tasks[first:end]]
        await together(
            [
                client.do(
                    "open_agents", address=server.address, tokens=tokens[number::CLIENTS], ca=ca
                )
                for number, client in enumerate(stage.clients)
            ]
        )

    try:
        await connect(0, warm)
        before = await settled_bytes(server.pid)
        await connect(warm, warm + count)
        return (await settled_bytes(server.pid) - before) / count / 1000
    finally:
        for client in stage.clients:
            await client.do("close_agents")


async def _bare_cost(stage: Stage, server: Server, count: int) -> float:
    client, warm = stage.clients[0], count // 5
    arguments = {"address": server.address, "method": "/bench.Bare/Idle"}
    try:
        await client.do("open_idle", count=warm, **arguments)
        before = await settled_bytes(server.pid)
        await client.do("open_idle", count=count, **arguments)
        return (await settled_bytes(server.pid) - before) / count / 1000
    finally:
        await client.do("close_agents")


async def settled_bytes(pid: int) -> int:
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
