"""The messages of a server to a follow, in streams that may end anywhere."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, ClassVar

import grpc
from google.protobuf.message import DecodeError

from tasklogs import delta_codec
from tasklogs.client.backoff import ReconnectWaits
from tasklogs.client.credentials import Credentials
from tasklogs.client.events import (
    EntriesChanged,
    EntryWithdrawn,
    EpochStarted,
    FollowEvent,
    Reconnected,
    Reconnecting,
)
from tasklogs.client.follow import Follow
from tasklogs.client.follow_streams import FollowStreams
from tasklogs.errors import TaskLogsRpcError
from tasklogs.log.delta import Delta, Piece
from tasklogs.v1 import task_logs_pb2 as pb
from tests.fuzz.loop import Loop
from tests.fuzz.pieces import joined, split
from tests.fuzz.target import Target
from tests.fuzz.virtual_time import VirtualTimeLoop
from tests.support.fakes.log_server import (
    ACTIVE,
    PAUSED,
    caught_up,
    change,
    delta,
    entries,
    entry,
    epoch_started,
    progress,
    status,
    withdrawn,
)
from tests.support.fixtures.content_deltas import content_delta, result_of

_CODES = list(grpc.StatusCode)
_BREAK = b"!"
"""Comes before a code and the details of a stream's end. No message begins with it."""
_MOST_PIECES = 200
_ENTRY_BYTES = 4 * 1024 * 1024
_LONGEST = timedelta(hours=1.5)


class FollowEvents(Target):
    """Only documented errors may result. Each event was sent by a stream, and none comes twice.

    A delta is applied exactly to what its stream sent before, and the result has its checksum.
    """

    name: ClassVar[str] = "follow_events"
    max_bytes: ClassVar[int] = 2048

    def __init__(self) -> None:
        self._loop = Loop(VirtualTimeLoop())

    def close(self) -> None:
        self._loop.close()

    def seeds(self) -> Iterable[bytes]:
        text = "aü漢😀"
        grows = [
            status("a", ACTIVE),
            epoch_started("b", 1, 1),
            entries("c", entry(0, "hello", 2), entry(1, "", 3)),
            delta("d", 1, 3, 4, 0, text, crc32=zlib.crc32(text.encode())),
            delta("e", 1, 4, 5, 3, "!", crc32=zlib.crc32("aü!".encode())),
            change("e", 1, 5, 6, content_delta("aü!", Delta((Piece(3, 1), Piece(0, 3, b"?"))))),
            caught_up("e"),
            progress("e"),
            withdrawn("f", 1, 7),
        ]
        said = [one.SerializeToString() for one in grows]
        unavailable, unauthenticated = _BREAK + b"\x0e", _BREAK + b"\x10"
        yield joined(said)
        yield joined([*said[:3], change("d", 1, 3, 4, None).SerializeToString(), *said])
        yield joined([*said[:5], unavailable, said[0], said[4], *said[3:]])
        yield joined([*said[:4], b"\xff\xff", *said])
        yield joined([*said[:3], unauthenticated, said[0], unauthenticated, *said])
        yield joined([said[0], *(_compressed(one) for one in grows[1:])])
        yield joined([*said[:3], _compressed(grows[3], cut=3), said[0], *map(_compressed, grows)])
        wrong = delta("d", 1, 3, 4, 0, text, crc32=1), delta("d", 1, 3, 4, 1, "x"), *grows[5:]
        yield joined([*said[:3], *(one.SerializeToString() for one in wrong)])
        lost = entries(
            "g", entry(0, "lo漢", 7, dropped_bytes=3), entry(0, "漢x", 8, dropped_bytes=5)
        )
        yield joined([*said[:3], lost.SerializeToString(), status("h", PAUSED).SerializeToString()])

    def run(self, data: bytes) -> None:
        self._loop.run(_followed(split(data)[:_MOST_PIECES]))


async def _followed(script: list[bytes]) -> None:
    server = _Server(script)
    method: Any = server.open
    streams = FollowStreams(
        method,
        pb.FollowTaskLogsRequest(task="a/b", deltas=True),
        Credentials(lambda: "token"),
        ReconnectWaits(first=timedelta(milliseconds=1), cap=timedelta(milliseconds=2)),
        require=_nothing_needed,
        progress=True,
        connect_timeout=None,
        reconnect_timeout=None,
        on_reconnect=_told,
    )
    follow = Follow(streams, set())
    view = _View()
    try:
        async for event in follow:
            view.apply(event, server)
    except TaskLogsRpcError as error:
        assert str(error)
    else:
        raise AssertionError("a follow ends with an error")
    assert all(stream.is_cancelled for stream in server.streams)


async def _nothing_needed() -> None:
    pass


def _told(what: Reconnecting | Reconnected) -> None:
    if isinstance(what, Reconnecting):
        assert timedelta(0) <= what.delay <= _LONGEST


class _View:
    """The log as a reader builds it: each event must explain how it was reached."""

    def __init__(self) -> None:
        self._revision = 0
        self._contents: dict[tuple[int, int], tuple[int, str]] = {}

    def apply(self, event: FollowEvent, server: _Server) -> None:
        match event:
            case EntriesChanged():
                self._entries(event)
                server.explains(event)
            case EntryWithdrawn() | EpochStarted():
                self._grow(event.revision)

    def _entries(self, event: EntriesChanged) -> None:
        for changed in event.changes:
            one, key = changed.entry, (event.epoch, changed.entry.id)
            self._grow(one.revision)
            assert len(one.content.encode()) <= _ENTRY_BYTES
            if changed.replaces is None:
                assert changed.appended == one.content
                assert changed.kept == 0
            else:
                revision, before = self._contents[key]
                assert changed.replaces == revision
                assert 0 <= changed.kept <= len(before)
                assert one.content.startswith(before[: changed.kept])
                if changed.appended is not None:
                    assert one.content.endswith(changed.appended)
                    assert changed.kept in (0, len(before))
            self._contents[key] = (one.revision, one.content)

    def _grow(self, revision: int) -> None:
        assert revision > self._revision
        self._revision = revision


class _Server:
    """Plays the script: a new stream continues where the last one ended."""

    def __init__(self, script: list[bytes]) -> None:
        self.script = iter(script)
        self.streams: list[_Stream] = []

    def open(self, request: object, **_: object) -> _Stream:
        self.streams.append(_Stream(self.script))
        return self.streams[-1]

    def explains(self, event: EntriesChanged) -> None:
        self.streams[-1].explains(event)


class _Stream:
    """Keeps what it sent, so it knows the result of each of its deltas."""

    def __init__(self, script: Any) -> None:
        self._script = script
        self._last = pb.FollowTaskLogsResponse()
        self._sent: defaultdict[tuple[int, int, int], list[bytes]] = defaultdict(list)
        """By epoch, id and revision. A hostile server may use one revision for two contents."""
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

    async def read(self) -> object:
        piece = next(self._script, None)
        if piece is None:
            # No proxy says this: it ends every follow.
            raise _error(grpc.StatusCode.INVALID_ARGUMENT, b"")
        if piece[:1] == _BREAK:
            raise _error(_CODES[piece[1] % len(_CODES) if piece[1:] else 0], piece[2:])
        try:
            message = pb.FollowTaskLogsResponse.FromString(piece)
        except DecodeError:
            return None
        self._last = _inside(message)
        for one in self._last.entries.logs:
            key = (self._last.entries.epoch, one.id, one.revision)
            self._sent[key].append(one.content.encode())
        return message

    def explains(self, event: EntriesChanged) -> None:
        said = self._last
        if said.WhichOneof("event") == "entries":
            whole = {(one.id, one.revision, one.content) for one in said.entries.logs}
            assert {(one.id, one.revision, one.content) for one in event.entries} <= whole
            return
        [shown], sent = event.entries, said.delta
        content = shown.content.encode()
        assert (shown.id, shown.revision) == (sent.id, sent.revision)
        bases = self._sent[sent.epoch, sent.id, sent.base_revision]
        pieces = delta_codec.decode(sent.content)
        assert content in [result_of(base, pieces) for base in bases]
        assert sent.content.HasField("crc32")
        assert zlib.crc32(content) == sent.content.crc32
        self._sent[sent.epoch, sent.id, sent.revision].append(content)


def _inside(message: pb.FollowTaskLogsResponse) -> pb.FollowTaskLogsResponse:
    """Return what a client finds inside a compressed message. A bad one has no event."""
    if not message.HasField("compressed"):
        return message
    try:
        return pb.FollowTaskLogsResponse.FromString(zlib.decompress(message.compressed.zlib))
    except (zlib.error, DecodeError):
        return pb.FollowTaskLogsResponse()


def _compressed(message: pb.FollowTaskLogsResponse, cut: int = 0) -> bytes:
    encoded = message.SerializeToString()
    outside = pb.FollowTaskLogsResponse(cursor_end="z")
    outside.compressed.zlib = zlib.compress(encoded)[: -cut or None]
    outside.compressed.size_bytes = len(encoded)
    return outside.SerializeToString()


def _error(code: grpc.StatusCode, details: bytes) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata(("grpc-status-details-bin", details))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, "said")
