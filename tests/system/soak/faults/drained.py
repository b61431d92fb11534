"""SIGTERM under load, then a start, as in every deployment of a new version."""

from __future__ import annotations

import asyncio
import random

from tests.system.soak.fault import Fault, Part, Server, World
from tests.system.soak.faults.servers import names_of, some_servers


class ServerDrained:
    """A server answers every call that reached it, at worst with UNAVAILABLE and RetryInfo.

    Several are restarted one after the other, as a rolling update does.
    """

    name = "server-drained"
    parts = frozenset({Part.SERVER})
    seconds = (0.0, 3.0)
    lets_calls_finish = True

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        chosen = some_servers(world.servers, chance)
        took = [await self._restart(world, one, seconds) for one in chosen]
        ended = ", ".join(f"{one:.1f}" for one in took)
        return f"{names_of(chosen)} ended in {ended} s, away for {seconds:.1f} s"

    async def _restart(self, world: World, server: Server, seconds: float) -> float:
        """Return how many seconds the server needed to end."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            code = await server.end()
            took = loop.time() - began
            await asyncio.sleep(seconds)
        finally:
            await server.start()
        await world.serving(server)
        if code != 0:
            raise RuntimeError(f"{server.name} ended with exit code {code} after {took:.1f} s")
        return took


FAULTS: tuple[Fault, ...] = (ServerDrained(),)
