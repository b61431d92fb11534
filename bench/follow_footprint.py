"""Server memory per idle follower."""

from __future__ import annotations

import statistics

from bench.clients import together
from bench.follow_latency import follow_request
from bench.followers import CAUGHT_UP, FOLLOW
from bench.footprint import _settled_bytes
from bench.processes import Server, our_server
from bench.result import Result
from bench.side import Side, all_do
from bench.stage import Stage

_SHARED_CHANNELS = 10


async def idle_followers(stage: Stage) -> list[Result]:
    """Each follows its own task, so it has its own feed. The first ones are the warm-up.

    Each measurement has a new server: memory that earlier load has freed would hide the growth.
    """
    count = 60 if stage.quick else 500
    own: list[float] = []
    shared: list[float] = []
    for _ in range(1 if stage.quick else 2):
        async with our_server(stage.dsn) as server:
            own.append(await _cost(stage, server, count, channels=0))
        async with our_server(stage.dsn) as server:
            shared.append(await _cost(stage, server, count, channels=_SHARED_CHANNELS))
    return [
        _row(f"server memory per idle follower ({count} of {count} tasks, a connection each)", own),
        _row(
            f"server memory per idle follower ({count} of {count} tasks, over"
            f" {_SHARED_CHANNELS * len(stage.clients)} connections)",
            shared,
        ),
    ]


async def _cost(stage: Stage, server: Server, count: int, *, channels: int) -> float:
    warm, sides = count // 5, [Side(client, "idle") for client in stage.clients]
    tasks = await stage.create_tasks(warm + count, server=server)

    async def follow(first: int, end: int) -> None:
        requests = [follow_request(task) for task in tasks[first:end]]
        await together(
            [
                side.do(
                    "follow",
                    address=server.address,
                    method=FOLLOW,
                    requests=requests[number :: len(sides)],
                    ready=CAUGHT_UP.hex(),
                    channels=channels,
                )
                for number, side in enumerate(sides)
            ]
        )

    try:
        await follow(0, warm)
        before = await _settled_bytes(server.pid)
        await follow(warm, warm + count)
        return (await _settled_bytes(server.pid) - before) / count / 1000
    finally:
        await all_do(sides, "leave")


def _row(what: str, figures: list[float]) -> Result:
    return Result(
        what=what,
        ours=statistics.median(figures),
        unit="KB",
        ratios=figures,
        target=60,
        at_most=True,
        note="plain; the spread is of our KB",
    )
