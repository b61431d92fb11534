"""I7: followers that stop reading cost the server bounded memory, and catch up later."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import psutil

from tasklogs.v1 import task_logs_pb2 as pb
from tests.middleware.unread_responses import Reader as UnreadStreams
from tests.middleware.unread_responses import follow
from tests.reads.follow_reader import Reader, reading
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.postgres import PostgresServer
from tests.system.end_to_end.test_follow_restarts import serving

_MIB = 1024 * 1024
_FOLLOWERS = 20
_ENTRY_BYTES = 64 * 1024
_MANY_FOLLOWERS = 200


async def test_followers_that_stall_longer_take_no_more_memory(
    postgres_server: PostgresServer,
) -> None:
    async with (
        asyncio.timeout(90),
        serving(postgres_server.dsn()) as (process, server),
        AsyncExitStack() as stack,
    ):
        assert process.process is not None
        measured = psutil.Process(process.process.pid)
        made = await server.create_task()
        agent = await stack.enter_async_context(ScriptedAgent.connect(server, made.agent_token))
        await agent.append([log_entry(0, "")], open_epoch=True)
        readers = []
        for _ in range(_FOLLOWERS + 1):
            request = pb.FollowTaskLogsRequest(
                task="local/demo", source=pb.LOG_SOURCE_SNAPSHOT, deltas=True
            )
            call = server.logs.FollowTaskLogs(request)
            stack.callback(call.cancel)
            readers.append(await stack.enter_async_context(reading(aiter(call))))
        await asyncio.gather(*(one.heard("caught_up") for one in readers))
        stalled = readers[1:]
        for one in stalled:
            one.reads_on.clear()

        async def redraw(times: int) -> None:
            for index in range(times):
                await agent.append([log_entry(0, f"{index % 10}" * _ENTRY_BYTES)])
                await agent.acked()

        await redraw(150)  # 10 MB fill all that gRPC buffers before a write waits
        before = measured.memory_info().rss
        await redraw(300)
        grown = measured.memory_info().rss - before
        await agent.append([log_entry(0, "the end")])
        for one in stalled:
            one.reads_on.set()
        await asyncio.gather(*(_shows_the_end(one) for one in readers))
        assert grown < 10 * _MIB  # without a bound: 20 MB for each of 20 followers
        assert max(len(one.messages) for one in stalled) < 450, "changes were not coalesced"


async def test_followers_that_read_nothing_of_a_busy_tail_share_one_budget(
    postgres_server: PostgresServer,
) -> None:
    """Each begins at another change, so that none of them holds the same message."""
    async with (
        asyncio.timeout(180),
        serving(postgres_server.dsn()) as (process, server),
        AsyncExitStack() as stack,
    ):
        assert process.process is not None
        measured = psutil.Process(process.process.pid)
        made = await server.create_task()
        agent = await stack.enter_async_context(ScriptedAgent.connect(server, made.agent_token))
        text = "a megabyte of text".ljust(980_000, ".")
        await agent.append([log_entry(0, text)], open_epoch=True)
        await agent.acked()
        before = measured.memory_info().rss
        for _ in range(4):
            connection = await stack.enter_async_context(UnreadStreams.connected(server))
            for number in range(_MANY_FOLLOWERS // 4):
                await follow(connection)
                await agent.append([log_entry(0, f"{number}{text}")])
                await agent.acked()
        grown = measured.memory_info().rss - before
        # Half of TASKLOGS_ANSWER_BYTES, and what the allocators keep. Without a bound: 766 MiB.
        assert grown < 256 * _MIB


async def _shows_the_end(reader: Reader) -> None:
    await reader.until(lambda: reader.view.contents() == {(1, 0): "the end"})
