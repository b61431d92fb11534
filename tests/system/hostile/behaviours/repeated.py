"""The same attack in a loop, on many connections at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

from tests.system.hostile.peer import GONE, Peer, Tally
from tests.system.hostile.target import Target

Behaviour: TypeAlias = "Callable[[Target, Tally], Awaitable[None]]"
Attack: TypeAlias = "Callable[[Peer], Awaitable[None]]"

# The pause before the next attempt at a server that accepts no connections.
_REFUSED_PAUSE_SECONDS = 0.05
# How many TLS handshakes of ours run at the same time: more would only wait for each other.
_DIALLING = 32


async def by_many(
    count: int,
    target: Target,
    tally: Tally,
    attack: Attack,
    *,
    pause_seconds: float = 0.0,
    without_tls: bool = False,
) -> None:
    """Keep `count` connections open, each with `attack` running. Reopen those that are cut."""
    dialling = asyncio.Semaphore(_DIALLING)

    async def one() -> None:
        while True:
            try:
                await tally.pace.keep()
                async with _dialled(dialling, target, tally, without_tls=without_tls) as peer:
                    await attack(peer)
            except GONE:
                await asyncio.sleep(_REFUSED_PAUSE_SECONDS)
            await asyncio.sleep(pause_seconds)

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(one())


@asynccontextmanager
async def _dialled(
    dialling: asyncio.Semaphore, target: Target, tally: Tally, *, without_tls: bool
) -> AsyncIterator[Peer]:
    connected = Peer.connected(target, tally, without_tls=without_tls)
    async with dialling:
        peer = await connected.__aenter__()
    try:
        yield peer
    except BaseException as error:
        if not await connected.__aexit__(type(error), error, error.__traceback__):
            raise
    else:
        await connected.__aexit__(None, None, None)


async def until_closed(peer: Peer, *actions: Awaitable[None]) -> None:
    """Run all `actions` while the peer acknowledges what it must. The first end ends all."""
    doing = [asyncio.ensure_future(one) for one in (*actions, peer.behave())]
    try:
        done, _ = await asyncio.wait(doing, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            one.result()
    finally:
        for one in doing:
            one.cancel()
        await asyncio.gather(*doing, return_exceptions=True)
