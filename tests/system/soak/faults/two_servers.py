"""Two servers on one database that both believe they hold the sessions."""

from __future__ import annotations

import asyncio
import contextlib
import random

from tests.support.fakes.faulty_proxy import Direction
from tests.system.soak.fault import Fault, Part, World

_HOLD_SECONDS = 2.0


class TwoServers:
    """The agents' connections break where the first server cannot see it, and a second one gets
    their next ones. Later what they had last said reaches the first server: the fence must refuse
    it."""

    name = "two-servers"
    parts = frozenset({Part.SERVER, Part.AGENT_NETWORK})
    # Twenty seconds after the last word the first server would give the connections up itself.
    seconds = (4.0, 14.0)
    lets_calls_finish = False

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        network = world.agent_network
        async with world.second_server() as second:
            try:
                network.mute(Direction.TO_TARGET)
                await asyncio.sleep(_HOLD_SECONDS)  # until enough of them have said something
                held_bytes = network.held_bytes
                network.target = second.port
                network.strand()
                await asyncio.sleep(seconds)
                await network.heal()  # to the first server, what was held for so long
                await asyncio.sleep(chance.uniform(0.5, 2.0))
            finally:
                await network.heal()
                network.target = world.server.port
                if chance.random() < 0.5:
                    with contextlib.suppress(TimeoutError):
                        await second.end()
                network.cut()
        return f"{held_bytes} bytes came to the first server {seconds:.1f} s after its fence fell"


FAULTS: tuple[Fault, ...] = (TwoServers(),)
