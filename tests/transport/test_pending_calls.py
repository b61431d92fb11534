"""Calls that arrive while the server is busy: how many may wait, and how the others end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import grpc.aio

from tasklogs.v1 import task_logs_pb2, task_logs_pb2_grpc
from tests.support.fixtures.server import MakeServer, Server
from tests.system.hostile import frames
from tests.system.hostile.frames import ACK, HEADER_BYTES, PREFACE, Frame, Kind, frame

REQUEST = task_logs_pb2.GetTaskLogsRequest(task="local/demo")
FIELDS = frames.request_fields("/tasklogs.v1.TaskLogs/GetTaskLogs")
# gRPC's default is 3,000.
MANY = 4000

BOUND = 20
# In addition to the queue: the one that the server has asked for, and one more that gRPC accepts.
WITH_US = 2


async def test_calls_behind_thousands_of_reset_calls_are_answered(make_server: MakeServer) -> None:
    async with make_server(streams_per_connection=MANY) as server:
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


class RawPeer:
    """A hand-written connection. It waits without the event loop, so the server handles nothing."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._next_stream = 1

    @classmethod
    @contextmanager
    def connected(cls, server: Server) -> Iterator[Self]:
        host, _, port = server.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            peer = cls(connection)
            connection.sendall(PREFACE + frames.settings())
            peer.streams_of(Kind.SETTINGS, 1)
            connection.sendall(frame(Kind.SETTINGS, flags=ACK))
            yield peer

    def reset_calls(self, count: int) -> None:
        """Begin calls and reset them. Returns when gRPC has all of them."""
        for _ in range(count):
            self.reset_call()
        self._connection.sendall(frame(Kind.PING, b"all said"))
        self.streams_of(Kind.PING, 1)

    def reset_call(self) -> None:
        stream = self._stream()
        self._connection.sendall(frames.headers(stream, FIELDS) + frames.rst_stream(stream))

    def call(self, request: bytes) -> int:
        """Send a complete call. Returns its stream."""
        stream = self._stream()
        self._connection.sendall(frames.headers(stream, FIELDS) + frames.message(stream, request))
        return stream

    def streams_of(self, kind: Kind, count: int) -> set[int]:
        """Wait until so many streams have had a frame of this kind. Returns them."""
        streams: set[int] = set()
        while len(streams) < count:
            received = self._next_frame()
            if received.kind == kind:
                streams.add(received.stream)
        return streams

    def _stream(self) -> int:
        self._next_stream += 2
        return self._next_stream - 2

    def _next_frame(self) -> Frame:
        length, head = frames.header_of(self._exactly(HEADER_BYTES))
        self._exactly(length)
        return head

    def _exactly(self, count: int) -> bytes:
        got = b""
        while len(got) < count:
            piece = self._connection.recv(count - len(got))
            assert piece, "the server hung up"
            got += piece
        return got
