"""SIGTERM under load, then a start, as in every deployment of a new version."""

from __future__ import annotations

import asyncio
import random

from tests.system.soak.fault import Fault, Part, World


class ServerDrained:
    """The server answers every call that reached it, at worst with UNAVAILABLE and RetryInfo."""

    name = "server-drained"
    parts = frozenset({Part.SERVER})
    seconds = (0.0, 3.0)
    lets_calls_finish = True

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            code = await world.server.end()
            took = loop.time() - began
            await asyncio.sleep(seconds)
        finally:
            await world.server.start()
        await world.serving()
        if code != 0:
            raise RuntimeError(f"the server ended with exit code {code} after {took:.1f} s")
        return f"ended in {took:.1f} s, away for {seconds:.1f} s"


FAULTS: tuple[Fault, ...] = (ServerDrained(),)
