"""Callers that grant no window: how many bytes are held for them, how long, and who must wait."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import pytest

from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import task_logs_pb2_grpc
from tasklogs_server import app
from tasklogs_server.concurrency.background import background
from tasklogs_server.domain.errors import LimitExceeded
from tasklogs_server.domain.limits import Limit
from tasklogs_server.middleware.responses import Responses
from tasklogs_server.settings import ServerSettings
from tasklogs_server.telemetry.observer import Observer
from tasklogs_server.transport.grpc_workarounds import reset_calls
from tests.middleware.unread_responses import PAGE_BYTES, Reader, fill
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.reports import get_task
from tests.support.fixtures.server import MakeServer, Server

MIB = 1024 * 1024
CHECK = "/grpc.health.v1.Health/Check"
FOLLOW_TASK_LOGS = "/tasklogs.v1.TaskLogs/FollowTaskLogs"


class Limited(Observer):
    """Records the limits that it is told of."""

    def __init__(self) -> None:
        self.limits: list[str] = []

    def limited(self, limit: str) -> None:
        self.limits.append(limit)


def settings_of(**given: Any) -> ServerSettings:
    return ServerSettings(listen="127.0.0.1:0", **given)


async def test_an_unread_response_is_given_up(make_server: MakeServer) -> None:
    async with make_server(answer_timeout=timedelta(seconds=0.4)) as server:
        await fill(server)
        async with Reader.connected(server) as reader:
            stream = await reader.ask_until_answered()

            async def is_reset() -> bool:
                await get_task(server)  # gRPC keeps the last call until the next one comes
                return stream in reader.ended

            await until(is_reset)

            assert not reader.received[stream]


async def test_an_unread_response_of_health_is_given_up_too(make_server: MakeServer) -> None:
    async with make_server(answer_timeout=timedelta(seconds=0.4)) as server:
        await fill(server)
        async with Reader.connected(server) as reader:
            stream = await reader.peer.call(reader.target, CHECK, b"", None)
            await reader.until(lambda: stream in reader.began)

            async def is_reset() -> bool:
                await get_task(server)
                return stream in reader.ended

            await until(is_reset)


async def test_a_response_that_is_read_late_is_complete(make_server: MakeServer) -> None:
    async with make_server() as server:
        await fill(server)
        async with Reader.connected(server) as reader:
            stream = await reader.ask_until_answered()
            assert not reader.received[stream]
            await reader.grant_window(stream)

            await reader.until(lambda: stream in reader.ended)

            assert reader.ended[stream] is None
            assert reader.received[stream] > PAGE_BYTES


async def test_unread_responses_do_not_count_as_reads(
    make_server: MakeServer,
) -> None:
    async with make_server(reads=2, queued_reads=0) as server:
        await fill(server)
        async with Reader.connected(server) as reader:
            for _ in range(6):
                await reader.ask_until_answered()

            answer = await server.logs.GetTaskLogs(pb.GetTaskLogsRequest(task="local/demo"))

            assert len(answer.logs[0].content) == PAGE_BYTES


async def test_one_caller_may_have_half_of_the_unread_bytes(
    make_server: MakeServer,
) -> None:
    async with make_server(answer_bytes=16 * MIB) as server:
        await fill(server)
        async with Reader.connected(server) as reader, Reader.connected(server) as other:
            for _ in range(10):  # until 8 MiB are reached
                await reader.ask_until_answered()
            assert not reader.ended

            refused = await reader.ask()
            await reader.until(lambda: refused in reader.ended)
            assert reader.ended[refused] is None  # with a status
            stream = await other.ask_until_answered()
            await other.grant_window(stream)
            await other.until(lambda: stream in other.ended)
            assert other.received[stream] > PAGE_BYTES


async def test_queued_reads_are_held_to_the_same_unread_bytes(
    make_server: MakeServer,
) -> None:
    calls = 40
    async with make_server(answer_bytes=16 * MIB, reads=1, queued_reads=calls) as server:
        await fill(server)
        async with Reader.connected(server) as reader:
            await asyncio.gather(*(reader.ask() for _ in range(calls)))

            await reader.until(lambda: len(reader.began) == calls)

            held = reader.began - reader.ended.keys()
            assert 8 * MIB // PAGE_BYTES <= len(held) <= 8 * MIB // PAGE_BYTES + 1


async def test_a_caller_with_unread_responses_may_begin_a_stream(make_server: MakeServer) -> None:
    async with make_server(answer_bytes=16 * MIB) as server:
        await fill(server)
        async with Reader.connected(server) as reader:
            for _ in range(10):
                await reader.ask_until_answered()
            refused = await reader.ask()
            await reader.until(lambda: refused in reader.ended)
            request = pb.FollowTaskLogsRequest(task="local/demo").SerializeToString()

            stream = await reader.peer.call(reader.target, FOLLOW_TASK_LOGS, request, None)

            await reader.until(lambda: stream in reader.began)
            assert stream not in reader.ended


async def test_if_all_callers_leave_too_much_unread_the_slowest_are_given_up() -> None:
    observer = Limited()
    responses = Responses(100, timedelta(minutes=1), reset=reset_calls, observer=observer)

    async def takes_nothing() -> None:
        await asyncio.Event().wait()

    async with background(responses.cut_off()), asyncio.TaskGroup() as group:
        end_of_a_stream = group.create_task(takes_nothing())
        responses.began(end_of_a_stream, None, 0)
        calls = [group.create_task(takes_nothing()) for _ in range(4)]
        for number, call in enumerate(calls):
            responses.began(call, number, 25)
        with pytest.raises(LimitExceeded):  # none of them is slow yet
            responses.check("another")

        await until(lambda: _may_ask(responses, "another"))

        await asyncio.wait(calls[:1])
        assert [call.cancelled() for call in calls] == [True, False, False, False]
        assert responses.held_bytes == 75
        assert observer.limits == [Limit.ANSWER_BYTES]
        assert not end_of_a_stream.done()  # it holds no bytes
        for call in (end_of_a_stream, *calls):
            call.cancel()
        await asyncio.wait([end_of_a_stream, *calls])
        assert responses.held_bytes == 0


async def test_a_stall_of_the_server_does_not_make_responses_unread() -> None:
    responses = Responses(100, timedelta(seconds=1), reset=reset_calls)
    taken = asyncio.Event()

    async def is_taken() -> None:
        await taken.wait()

    async with background(responses.cut_off()):
        call = asyncio.create_task(is_taken())
        responses.began(call, "somebody", 100)
        await asyncio.sleep(0)
        time.sleep(2.5)  # noqa: ASYNC251 - the stall
        for _ in range(5):
            await asyncio.sleep(0)  # the look that was due comes first
        taken.set()

        await call
        assert responses.held_bytes == 0


async def test_a_drain_lets_callers_read_their_responses(
    database: str,
) -> None:
    async with app.run(settings_of(), database) as running:
        async with grpc.aio.insecure_channel(running.address) as channel:
            server = Server(running.address, database, channel)
            await fill(server)
        async with Reader.connected(server) as reader:
            stream = await reader.ask_until_answered()
            draining = asyncio.create_task(running.drain())
            await until(lambda: _refuses(running.address))
            assert not draining.done()

            await reader.grant_window(stream)

            await reader.until(lambda: stream in reader.ended)
            assert reader.ended[stream] is None
            assert reader.received[stream] > PAGE_BYTES
            await draining


async def test_a_drain_waits_for_unread_responses_no_longer_than_its_timeout(
    database: str,
) -> None:
    async with app.run(settings_of(drain_timeout=timedelta(seconds=0.3)), database) as running:
        async with grpc.aio.insecure_channel(running.address) as channel:
            server = Server(running.address, database, channel)
            await fill(server)
        async with Reader.connected(server) as reader:
            await reader.ask_until_answered()

            async with asyncio.timeout(DEADLINE_SECONDS):
                await running.drain()


async def test_a_drain_does_not_wait_for_unread_responses_of_health(database: str) -> None:
    long = timedelta(minutes=5)
    settings = settings_of(drain_timeout=long, answer_timeout=long)
    async with (
        app.run(settings, database) as running,
        grpc.aio.insecure_channel(running.address) as channel,
        Reader.connected(Server(running.address, database, channel)) as reader,
    ):
        stream = await reader.peer.call(reader.target, CHECK, b"", None)
        await reader.until(lambda: stream in reader.began)

        async with asyncio.timeout(DEADLINE_SECONDS):
            await running.drain()

        assert stream not in reader.ended


def _may_ask(responses: Responses, whose: str) -> bool:
    try:
        responses.check(whose)
    except LimitExceeded:
        return False
    return True


async def _refuses(address: str) -> bool:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = task_logs_pb2_grpc.TaskLogsStub(channel)
        refusal = await refused(stub.GetTaskLogs(pb.GetTaskLogsRequest(task="local/demo")))
    return refusal.reason == "DRAINING"
