"""A hand-written connection that begins calls of GetTaskLogs while the event loop stands still."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from tests.support.fixtures.server import Server
from tests.system.hostile import frames
from tests.system.hostile.frames import ACK, HEADER_BYTES, PREFACE, Frame, Kind, frame

FIELDS = frames.request_fields("/tasklogs.v1.TaskLogs/GetTaskLogs")


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
        self.has_arrived()

    def has_arrived(self) -> None:
        """Wait until gRPC has all that was sent."""
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

    def received(self, kind: Kind) -> int:
        """Return how many frames of this kind have arrived and were not looked at. Ends the use."""
        self._connection.setblocking(False)
        count = 0
        try:
            while True:
                count += self._next_frame().kind == kind
        except BlockingIOError:
            return count

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
