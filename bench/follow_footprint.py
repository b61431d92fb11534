"""Server memory per idle follower."""

from __future__ import annotations

from bench.clients import together
from bench.follow_latency import follow_request
from bench.followers import CAUGHT_UP, FOLLOW
from bench.footprint import idle_count, memory_row, settled_bytes, tls_server
from bench.processes import Server, our_server
from bench.result import Result
from bench.side import Side, all_do
from bench.stage import Stage

_SHARED_CHANNELS = 10


async def idle_followers(stage: Stage) -> list[Result]:
    """Each follows its own task, so it has its own feed. The first ones are the warm-up.

    Each measurement has a new server: memory that earlier load has freed would hide the growth.
    """
    count = idle_count(stage)
    own: list[float] = []
    shared: list[float] = []
    tls: list[float] = []
    for _ in range(1 if stage.quick else 2):
        async with our_server(stage.dsn) as server:
            own.append(await _cost(stage, server, count))
        async with our_server(stage.dsn) as server:
            shared.append(await _cost(stage, server, count, channels=_SHARED_CHANNELS))
        async with tls_server(stage.dsn) as (server, ca):
            tls.append(await _cost(stage, server, count, ca=ca))
    what = f"server memory per idle follower ({count} of {count} tasks, {{}})"
    connections = f"over {_SHARED_CHANNELS * len(stage.clients)} connections"
    return [
        memory_row(what.format("a connection each"), own, target=60),
        memory_row(what.format(connections), shared, target=60),
        memory_row(what.format("a TLS connection each"), tls, target=100),
    ]


async def _cost(
    stage: Stage, server: Server, count: int, *, channels: int = 0, ca: str = ""
) -> float:
    warm, sides = count // 5, [Side(client, "idle") for client in stage.clients]
    tasks = await stage.create_tasks(warm + count)

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
                    ca=ca,
                )
                for number, side in enumerate(sides)
            ]
        )

    try:
        await follow(0, warm)
        before = await settled_bytes(server.pid)
        await follow(warm, warm + count)
        return (await settled_bytes(server.pid) - before) / count / 1000
    finally:
        await all_do(sides, "leave")
