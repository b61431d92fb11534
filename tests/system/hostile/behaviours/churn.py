"""Connections that come, say hello and go."""

from __future__ import annotations

import asyncio

from tests.system.hostile.behaviours.repeated import by_many
from tests.system.hostile.peer import Peer, Tally
from tests.system.hostile.target import Target

_AT_ONCE = 8


async def connections(target: Target, tally: Tally) -> None:
    """Connect with a handshake if the server uses TLS. Half of the peers leave during it."""

    async def attack(peer: Peer) -> None:
        await peer.begin()
        await peer.next_frame()

    async with asyncio.TaskGroup() as group:
        group.create_task(by_many(_AT_ONCE, target, tally, attack))
        group.create_task(by_many(_AT_ONCE, target, tally, _leave, without_tls=True))


async def _leave(peer: Peer) -> None:
    await peer.send(b"\x16\x03\x01\x02\x00")


async def busy_neighbour(_: Target, tally: Tally) -> None:
    """Send nothing: this is what any busy process costs the others on this machine."""
    while True:
        sum(range(10_000))
        await tally.pace.keep()
        await asyncio.sleep(0)
