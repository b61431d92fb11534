"""The server's memory for followers of a busy tail that read nothing."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import psutil

from bench.clients import Worker
from bench.footprint import settled_bytes
from bench.processes import our_server
from bench.result import Result
from bench.stage import Stage
from tasklogs.connection.channel import open_channel
from tasklogs.v1 import task_logs_pb2 as pb
from tests.middleware.unread_responses import (
    FOLLOW_TASK_LOGS,
    FOLLOW_WINDOW_BYTES,
    Reader,
)
from tests.support.fixtures.server import Server as Served
from tests.system.hostile.memory import forget_peak, peak_bytes

_MIB = 1024 * 1024
_CONNECTIONS = 50
_TAIL_BYTES = 1_000_000
# The server ends a follow that reads nothing for so long. Here all of them stay.
_SETTINGS = {"TASKLOGS_ANSWER_TIMEOUT": "600"}


async def unread_follows(stage: Stage) -> list[Result]:
    """5,000 follows, in waves. The tail of 1 MB changes before each wave.

    So the follows of a wave hold another message than those of every other wave.
    """
    waves = 4 if stage.quick else 100
    async with (
        our_server(stage.dsn, variables=_SETTINGS) as server,
        open_channel(server.address) as channel,
        AsyncExitStack() as stack,
    ):
        served, writer = Served(server.address, stage.dsn, channel), stage.clients[0]
        await _write_tail(served, writer)
        before = psutil.Process(server.pid).memory_info().rss
        forget_peak(server.pid)
        readers = [
            await stack.enter_async_context(Reader.connected(served)) for _ in range(_CONNECTIONS)
        ]
        ended = 0
        for _ in range(waves):
            await writer.do("write", rate=1000, seconds=0.001)
            ended += sum(await asyncio.gather(*(_begin(reader) for reader in readers)))
        peak = peak_bytes(server.pid) - before
        left = await settled_bytes(server.pid) - before
    return [
        Result(
            what=f"{waves * _CONNECTIONS:,} followers of a busy 1 MB tail that read nothing",
            ours=left / _MIB,
            unit="MiB",
            target=256,
            at_most=True,
            note=f"all of them together; {peak / _MIB:,.0f} MiB at the peak; the server ended"
            f" {ended:,} of them at once",
        )
    ]


async def _write_tail(server: Served, writer: Worker) -> None:
    made = await server.create_task(standalone=True)
    await writer.do(
        "open_writers",
        address=server.address,
        tokens=[made.agent_token],
        entries=1,
        content_bytes=_TAIL_BYTES,
    )


async def _begin(reader: Reader) -> bool:
    """Begin a follow that reads its first message and nothing after it.

    Returns whether the server ended it instead.
    """
    request = pb.FollowTaskLogsRequest(task="local/demo", source=pb.LOG_SOURCE_SNAPSHOT)
    stream = await reader.peer.call(
        reader.target, FOLLOW_TASK_LOGS, request.SerializeToString(), None
    )
    await reader.peer.grant(FOLLOW_WINDOW_BYTES, stream)
    await reader.until(lambda: reader.received[stream] > 0 or stream in reader.ended)
    return stream in reader.ended
