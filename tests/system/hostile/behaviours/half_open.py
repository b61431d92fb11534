"""A thousand connections that stop half way. A peer that is cut off connects again."""

from __future__ import annotations

import asyncio

from tests.system.hostile import frames
from tests.system.hostile.behaviours.floods import GET_TASK_LOGS
from tests.system.hostile.behaviours.repeated import by_many
from tests.system.hostile.frames import PREFACE, Kind, frame
from tests.system.hostile.peer import Peer, Tally
from tests.system.hostile.target import Target

# The start of a TLS 1.3 ClientHello that announces 512 bytes. Only 200 are sent.
_HALF_A_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200)


async def silent(target: Target, tally: Tally) -> None:
    await by_many(target.half_open, target, tally, Peer.listen_to_the_end, without_tls=True)


async def half_a_hello(target: Target, tally: Tally) -> None:
    async def attack(peer: Peer) -> None:
        await peer.send(_HALF_A_HELLO)
        await peer.listen_to_the_end()

    await by_many(target.half_open, target, tally, attack, without_tls=True)


async def no_preface(target: Target, tally: Tally) -> None:
    """In plain text, send half a preface: the server does not react to less."""

    async def attack(peer: Peer) -> None:
        await peer.send(PREFACE[:12] if target.ca is None else b"")
        await peer.listen_to_the_end()

    await by_many(target.half_open, target, tally, attack)


async def no_settings(target: Target, tally: Tally) -> None:
    async def attack(peer: Peer) -> None:
        await peer.send(PREFACE)
        await peer.listen_to_the_end()

    await by_many(target.half_open, target, tally, attack)


async def headers_without_end(target: Target, tally: Tally) -> None:
    """Send a few more bytes each second, in valid frames."""

    async def attack(peer: Peer) -> None:
        await peer.begin()
        block = frames.header_block(frames.request_fields(GET_TASK_LOGS, scheme=target.scheme))
        await peer.send(frame(Kind.HEADERS, block, stream=1))

        async def drip() -> None:
            while True:
                await asyncio.sleep(1)
                await peer.send(frame(Kind.CONTINUATION, b"", stream=1))

        dripping = asyncio.create_task(drip())
        try:
            await peer.listen_to_the_end()
        finally:
            dripping.cancel()
            await asyncio.gather(dripping, return_exceptions=True)

    await by_many(target.half_open, target, tally, attack)


async def idle(target: Target, tally: Tally) -> None:
    """Do everything right, then only acknowledge pings."""

    async def attack(peer: Peer) -> None:
        await peer.begin()
        await peer.behave()

    await by_many(target.half_open, target, tally, attack)
