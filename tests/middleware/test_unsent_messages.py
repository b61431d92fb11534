"""I7: follows whose callers do not read share one budget of bytes, and end after a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
import pytest

from tasklogs import TaskLogsClient
from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs_server.concurrency.background import background
from tasklogs_server.domain.caller import User
from tasklogs_server.domain.errors import LimitExceeded
from tasklogs_server.domain.limits import Limit
from tasklogs_server.middleware.handlers import Call
from tasklogs_server.middleware.responses import Responses
from tasklogs_server.middleware.unsent_messages import UnsentMessages
from tests.middleware.unread_responses import PAGE_BYTES, Reader
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.conditions import until
from tests.support.fixtures.reports import get_task, make_active
from tests.support.fixtures.server import MakeServer, Server
from tests.system.end_to_end.followed_events import following
from tests.telemetry.test_metrics import scrape

MIB = 1024 * 1024
FOLLOW_TASK_LOGS = "/tasklogs.v1.TaskLogs/FollowTaskLogs"
# Enough for the first message, the status, and not for an entry.
_WINDOW_BYTES = 1000


@asynccontextmanager
async def busy_tail(server: Server) -> AsyncIterator[ScriptedAgent]:
    """Create `local/demo` with a tail that fills a page; see `redraw`."""
    token = (await server.create_task()).agent_token
    await make_active(server)
    async with ScriptedAgent.connect(server, token) as agent:
        agent.answer_syncs()
        await agent.append([log_entry(0, "x" * PAGE_BYTES)], open_epoch=True)
        await agent.acked()
        yield agent


async def redraw(agent: ScriptedAgent, text: str) -> None:
    """Replace the whole tail: it begins with `text`, and each text makes another tail."""
    await agent.append([log_entry(0, text.ljust(PAGE_BYTES, "."))])
    await agent.acked()


async def follow(reader: Reader) -> int:
    """Begin a follow that reads its first message, and nothing after it. Returns the stream."""
    request = pb.FollowTaskLogsRequest(task="local/demo", source=pb.LOG_SOURCE_SNAPSHOT)
    stream = await reader.peer.call(
        reader.target, FOLLOW_TASK_LOGS, request.SerializeToString(), None
    )
    await reader.peer.grant(_WINDOW_BYTES, stream)
    await reader.until(lambda: reader.received[stream] > 0)
    return stream


async def test_a_follower_that_takes_nothing_is_told_to_come_back(make_server: MakeServer) -> None:
    async with (
        make_server(metrics_listen="0", answer_timeout=timedelta(seconds=1)) as server,
        busy_tail(server),
        Reader.connected(server) as reader,
    ):
        stream = await follow(reader)

        async def is_ended() -> bool:
            return (await scrape(server))("tasklogs_limited_total", limit=Limit.ANSWER_TIMEOUT) >= 1

        await until(is_ended)
        await reader.grant_window(stream)
        await reader.until(lambda: stream in reader.ended)

        assert reader.ended[stream] is None  # with a status, after the message
        assert reader.received[stream] > PAGE_BYTES


async def test_a_follower_that_never_reads_again_is_reset(make_server: MakeServer) -> None:
    async with (
        make_server(metrics_listen="0", answer_timeout=timedelta(seconds=0.5)) as server,
        busy_tail(server),
        Reader.connected(server) as reader,
    ):
        stream = await follow(reader)

        async def is_ended() -> bool:
            await get_task(server)  # gRPC keeps the last call until the next one comes
            return stream in reader.ended

        await until(is_ended)

        assert reader.received[stream] <= _WINDOW_BYTES
        assert (await scrape(server))("tasklogs_untaken_answer_bytes") < PAGE_BYTES


async def test_a_client_that_stops_reading_resumes_without_gap_or_repeat(
    make_server: MakeServer,
) -> None:
    async with (
        make_server(metrics_listen="0", answer_timeout=timedelta(seconds=0.5)) as server,
        busy_tail(server) as agent,
        TaskLogsClient(server.address) as client,
        following(client, "local/demo", deltas=True) as stalled,
    ):
        await stalled.until_caught_up()
        stalled.reads_on.clear()
        number = 1

        async def is_ended() -> bool:
            nonlocal number
            number += 1
            await agent.append([log_entry(number, "y" * PAGE_BYTES)])
            await agent.acked()
            return (await scrape(server))("tasklogs_limited_total", limit=Limit.ANSWER_TIMEOUT) >= 1

        await until(is_ended)
        revision = (await client.get_task("local/demo")).log.revision

        stalled.reads_on.set()
        await stalled.reached(revision)

        entries = stalled.of_epoch(1)
        assert sorted(entries) == [0, *range(2, number + 1)]
        # Each entry once; those of the message that the stream ended with may come again.
        assert stalled.changes <= 2 * number


async def test_followers_that_read_nothing_hold_no_more_than_their_part(
    make_server: MakeServer,
) -> None:
    """20 followers, each at another change of the tail: 18 MB encoded, and as much in gRPC."""
    async with (
        make_server(metrics_listen="0", answer_bytes=16 * MIB) as server,
        busy_tail(server) as agent,
        TaskLogsClient(server.address) as client,
        AsyncExitStack() as stack,
    ):
        reads = await stack.enter_async_context(following(client, "local/demo"))
        await reads.until_caught_up()
        most = waiting = 0.0
        for _ in range(2):
            reader = await stack.enter_async_context(Reader.connected(server))
            for number in range(10):
                await follow(reader)
                await redraw(agent, str(number))
                seen = await scrape(server)
                most = max(most, seen("tasklogs_untaken_answer_bytes"))
                waiting = max(waiting, seen("tasklogs_follows_waiting"))
        # It holds less than its half before it takes the last message.
        assert 4 * MIB < most <= 8 * MIB + 2 * (PAGE_BYTES + MIB)
        assert waiting
        revision = (await client.get_task("local/demo")).log.revision
        await reads.reached(revision)
        assert not reads.reconnects

        # A unary call still gets its answer.
        answer = await server.logs.GetTaskLogs(
            pb.GetTaskLogsRequest(task="local/demo", source=pb.LOG_SOURCE_SNAPSHOT)
        )
        assert len(answer.logs[0].content) == PAGE_BYTES
