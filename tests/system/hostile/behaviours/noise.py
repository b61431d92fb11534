"""Bytes that are not HTTP/2, or only begin like it."""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Iterator, Sequence

from tests.system.hostile import frames
from tests.system.hostile.behaviours.repeated import by_many
from tests.system.hostile.frames import END_HEADERS, PREFACE, Kind, frame
from tests.system.hostile.peer import Peer, Tally
from tests.system.hostile.target import Target

# One megabyte per second, over sixteen connections at a time.
_CONNECTIONS = 16
_RANDOM_BYTES = 64 * 1024
_PAUSE_SECONDS = 1.0

_chance = random.Random(20261122)


async def random_bytes(target: Target, tally: Tally) -> None:
    """If the server uses TLS, send half of the noise in place of the handshake."""

    async def attack(peer: Peer) -> None:
        await peer.send(_chance.randbytes(_RANDOM_BYTES))
        await peer.listen_to_the_end()

    await by_many(
        _CONNECTIONS,
        target,
        tally,
        attack,
        pause_seconds=_PAUSE_SECONDS,
        without_tls=_chance.random() < 0.5,
    )


async def random_bytes_after_the_preface(target: Target, tally: Tally) -> None:
    async def attack(peer: Peer) -> None:
        await peer.begin()
        await peer.send(_chance.randbytes(_RANDOM_BYTES))
        await peer.listen_to_the_end()

    await by_many(_CONNECTIONS, target, tally, attack, pause_seconds=_PAUSE_SECONDS)


async def malformed_frames(target: Target, tally: Tally) -> None:
    """Break every rule of RFC 9113 in turn, each on a connection of its own."""
    wrong: Iterator[bytes] = itertools.cycle(MALFORMED)

    async def attack(peer: Peer) -> None:
        await peer.begin()
        await peer.send(next(wrong))
        tally.sent += 1
        # gRPC does not close the connection for all of them: then the next one uses it too.
        for _ in range(len(MALFORMED)):
            await peer.send(next(wrong))
        await peer.listen_to_the_end()

    await by_many(_CONNECTIONS, target, tally, attack, pause_seconds=0.1)


def _malformed() -> Sequence[bytes]:
    block = frames.header_block(frames.request_fields("/tasklogs.v1.TaskLogs/GetTaskLogs"))
    whole = END_HEADERS
    return (
        b"\xff\xff\xff" + struct.pack(">BBI", Kind.DATA, 0, 1),  # longer than any frame may be
        frame(Kind.DATA, b"x"),  # without a stream
        frame(Kind.DATA, b"x", stream=99),  # on a stream that was never opened
        frame(Kind.DATA, b"\xff", flags=0x8, stream=1),  # more padding than frame
        frame(Kind.HEADERS, block, flags=whole),  # without a stream
        frame(Kind.HEADERS, block, flags=whole, stream=2),  # on a stream that only we may open
        frame(Kind.HEADERS, b"\xff" + block, flags=whole | 0x8, stream=1),  # too much padding
        frame(Kind.HEADERS, b"\xff\xff\xff\xff\xff\xff\xff", flags=whole, stream=1),  # no integer
        frame(Kind.HEADERS, b"\xfe", flags=whole, stream=3),  # an index that is not in the table
        frame(Kind.HEADERS, b"\x00\x7f\xff\xff\xff\xff\x0f", flags=whole, stream=5),  # endless name
        frame(Kind.HEADERS, b"\x00\x85\xff\xff\xff\xff\xff\x00", flags=whole, stream=7),  # Huffman
        frame(Kind.HEADERS, b"", flags=whole, stream=9),
        frame(Kind.HEADERS, frames.header_block([("UPPER", "x")]), flags=whole, stream=11),
        frame(Kind.HEADERS, frames.header_block([(":path", "\x00")]), flags=whole, stream=13),
        frame(Kind.HEADERS, b"\x3f\xff\xff\xff\xff\x0f" + block, flags=whole, stream=15),  # table
        frame(Kind.PRIORITY, b"x", stream=1),
        frame(Kind.RST_STREAM, b"\x00\x00\x00\x08"),
        frame(Kind.RST_STREAM, b"\x00", stream=1),
        frame(Kind.RST_STREAM, b"\x00\x00\x00\x08", stream=999),
        frame(Kind.SETTINGS, b"x"),
        frame(Kind.SETTINGS, b"\x00\x04\xff\xff\xff\xff"),  # a window above the maximum
        frame(Kind.SETTINGS, b"\x00\x05\x00\x00\x00\x01"),  # frames smaller than allowed
        frame(Kind.SETTINGS, b"x" * 6, flags=frames.ACK),
        frame(Kind.SETTINGS, stream=1),
        frame(Kind.PUSH_PROMISE, b"\x00\x00\x00\x02" + block, flags=whole, stream=1),
        frame(Kind.PING, b"short"),
        frame(Kind.PING, b"12345678", stream=1),
        frame(Kind.GOAWAY, b"x"),
        frame(Kind.GOAWAY, b"\x00" * 8 + b"x" * 8000),
        frame(Kind.WINDOW_UPDATE, b"\x00\x00\x00\x00"),
        frame(Kind.WINDOW_UPDATE, b"\x7f\xff\xff\xff") * 2,  # past the largest window
        frame(Kind.WINDOW_UPDATE, b"x"),
        frame(Kind.CONTINUATION, block, flags=whole, stream=1),  # without headers before it
        frame(Kind.HEADERS, block, stream=17) + frame(Kind.PING, b"12345678"),  # interrupted
        frame(0x7F, b"x" * 100, stream=1),  # of an unknown kind
        PREFACE,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    )


MALFORMED = _malformed()
