"""Requests that do not arrive, or arrive slowly."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs_server.concurrency.background import background
from tasklogs_server.domain.errors import RequestTooSlow
from tasklogs_server.middleware.requests import RequestBodies
from tests.middleware.unread_responses import GET_TASK_LOGS, Reader, fill
from tests.support.fixtures.conditions import until
from tests.support.fixtures.reports import get_task
from tests.support.fixtures.server import MakeServer
from tests.system.hostile import frames
from tests.system.hostile.frames import END_STREAM, Kind

FOLLOW = "/tasklogs.v1.TaskLogs/FollowTaskLogs"
CHECK = "/grpc.health.v1.Health/Check"


async def test_a_request_that_does_not_arrive_is_given_up_for_every_method(
    make_server: MakeServer,
) -> None:
    async with make_server(request_timeout=timedelta(seconds=0.4)) as server:
        await fill(server)
        async with Reader.connected(server) as reader:
            streams = [
                await reader.peer.open_call(reader.target, path)
                for path in (GET_TASK_LOGS, FOLLOW, CHECK)
            ]

            await reader.until(lambda: set(streams) <= set(reader.ended))

            assert not any(reader.received.values())


async def test_a_request_that_arrives_in_pieces_is_answered(make_server: MakeServer) -> None:
    async with make_server() as server:
        await fill(server)
        async with Reader.connected(server) as reader:
            stream = await reader.peer.open_call(reader.target, GET_TASK_LOGS)
            request = pb.GetTaskLogsRequest(task="local/demo").SerializeToString()
            for byte in b"\0" + len(request).to_bytes(4, "big") + request:
                await reader.peer.send(frames.frame(Kind.DATA, bytes([byte]), stream=stream))
            await reader.peer.send(frames.frame(Kind.DATA, flags=END_STREAM, stream=stream))

            await reader.until(lambda: stream in reader.began)


async def test_requests_that_do_not_arrive_do_not_count_as_reads(
    make_server: MakeServer,
) -> None:
    async with make_server(reads=1, queued_reads=0, writes=1, follows=1) as server:
        await fill(server)
        async with Reader.connected(server) as reader:
            for path in (GET_TASK_LOGS, FOLLOW, "/tasklogs.v1.Tasks/CreateTask") * 3:
                await reader.peer.open_call(reader.target, path)

            await get_task(server)
            call = server.logs.FollowTaskLogs(pb.FollowTaskLogsRequest(task="local/demo"))
            first = await call.read()
            assert isinstance(first, pb.FollowTaskLogsResponse)
            assert first.HasField("status")
            call.cancel()


async def test_a_call_without_a_request_is_an_invalid_argument(make_server: MakeServer) -> None:
    async with make_server() as server, Reader.connected(server) as reader:
        stream = reader.peer.next_stream()
        fields = frames.request_fields(GET_TASK_LOGS)
        await reader.peer.send(frames.headers(stream, fields, end_stream=True))

        await reader.until(lambda: stream in reader.ended)
        # It ends with some status: gRPC has none for this case.
        assert reader.ended[stream] is None


async def test_if_many_requests_do_not_arrive_the_slowest_are_given_up(
    make_server: MakeServer,
) -> None:
    async with make_server() as server, Reader.connected(server) as reader:
        streams = [await reader.peer.open_call(reader.target, GET_TASK_LOGS) for _ in range(140)]

        await reader.until(lambda: len(reader.ended) >= 12)

        assert len(reader.ended) == 12  # and no more than necessary
        assert set(reader.ended) < set(streams)
        assert all(code is None for code in reader.ended.values())  # with a status


async def test_of_callers_without_credentials_few_may_be_slow(make_server: MakeServer) -> None:
    async with make_server() as server, Reader.connected(server) as reader:
        unknown = [await reader.peer.open_call(reader.target, CHECK) for _ in range(30)]
        known = [await reader.peer.open_call(reader.target, GET_TASK_LOGS) for _ in range(30)]

        await reader.until(lambda: len(reader.ended) >= 22)

        assert set(reader.ended) == set(unknown[:22])
        assert not reader.ended.keys() & set(known)


async def test_the_longest_waits_are_given_up_first() -> None:
    bodies = RequestBodies(timedelta(seconds=30))
    cut_off: list[int] = []

    async def call(number: int) -> None:
        with pytest.raises(RequestTooSlow):
            await message(bodies, comes=asyncio.Event())
        cut_off.append(number)

    async with background(bodies.cut_off()):
        calls = [asyncio.create_task(call(number)) for number in range(140)]
        await until(lambda: len(cut_off) >= 12)
        assert cut_off == list(range(12))
        for one in calls:
            one.cancel()
        await asyncio.wait(calls)


async def test_many_calls_are_given_up_a_few_at_a_time() -> None:
    bodies = RequestBodies(timedelta(seconds=0.4))
    turns = 0
    told_in: Counter[int] = Counter()

    async def call() -> None:
        with pytest.raises(RequestTooSlow):
            await message(bodies, comes=asyncio.Event())
        told_in[turns] += 1

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with background(bodies.cut_off()), background(count_turns()):
        await asyncio.gather(*[call() for _ in range(300)])
    assert max(told_in.values()) <= 20


async def test_a_stall_of_the_server_does_not_make_requests_slow() -> None:
    bodies = RequestBodies(timedelta(seconds=30))
    came = asyncio.Event()

    cutting_off = asyncio.create_task(bodies.cut_off())
    calls = [asyncio.create_task(message(bodies, comes=came)) for _ in range(200)]
    await asyncio.sleep(0)
    time.sleep(2.5)  # noqa: ASYNC251 - the stall
    for _ in range(5):
        await asyncio.sleep(0)  # the look that was due comes first
    came.set()

    assert set(await asyncio.gather(*calls)) == {b"here"}
    cutting_off.cancel()


async def message(bodies: RequestBodies, comes: asyncio.Event) -> bytes:
    """Wait for a request, as a call does."""

    class Context:
        async def read(self) -> bytes:
            await comes.wait()
            return b"here"

    context: Any = Context()
    call = asyncio.current_task()
    assert call is not None
    return bytes(await bodies.read(call, context))
