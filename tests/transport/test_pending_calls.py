"""Calls that arrive while the event loop does not run: how many may wait, how the others end."""

from __future__ import annotations

import asyncio

import grpc.aio

from tasklogs.v1 import task_logs_pb2, task_logs_pb2_grpc
from tasklogs_server.transport.call_acceptor import ACCEPTS
from tests.support.fixtures.server import MakeServer, Server
from tests.system.hostile.frames import Kind
from tests.transport.raw_peer import RawPeer

REQUEST = task_logs_pb2.GetTaskLogsRequest(task="local/demo")
# gRPC's default is 3,000.
MANY = 4000

BOUND = 20
# In addition to the queue: those that the server has asked for, and one more that gRPC accepts.
WITH_US = ACCEPTS + 2


async def test_calls_behind_thousands_of_reset_calls_are_answered(make_server: MakeServer) -> None:
    async with make_server(streams_per_connection=MANY, pending_calls=2 * MANY) as server:
        await server.create_task()
        with RawPeer.connected(server) as peer:
            peer.reset_calls(MANY)
            codes = await asyncio.gather(*(code_of(server) for _ in range(20)))

    assert set(codes) == {grpc.StatusCode.OK}


async def test_calls_beyond_the_limit_are_dropped_and_the_others_answered(
    make_server: MakeServer,
) -> None:
    async with make_server(pending_calls=BOUND) as server:
        await server.create_task()
        with RawPeer.connected(server) as peer:
            calls = [peer.call(REQUEST.SerializeToString()) for _ in range(5 * BOUND)]
            dropped = peer.streams_of(Kind.RST_STREAM, len(calls) - BOUND - WITH_US)

            answered = await asyncio.to_thread(peer.streams_of, Kind.HEADERS, BOUND)

        assert dropped.isdisjoint(calls[:BOUND])
        assert dropped.isdisjoint(answered)
        assert await code_of(server) is grpc.StatusCode.OK


async def test_reset_streams_count_until_they_are_taken_from_the_queue(
    make_server: MakeServer,
) -> None:
    async with make_server(streams_per_connection=BOUND) as server:
        await server.create_task()
        with RawPeer.connected(server) as peer:
            for _ in range(3 * BOUND):
                peer.reset_call()
            # All are refused except those that wait.
            peer.streams_of(Kind.RST_STREAM, 2 * BOUND - WITH_US)

            assert await code_of(server) is grpc.StatusCode.OK


async def code_of(server: Server) -> grpc.StatusCode:
    call = task_logs_pb2_grpc.TaskLogsStub(server.channel).GetTaskLogs(REQUEST, timeout=60)
    return await call.code()
