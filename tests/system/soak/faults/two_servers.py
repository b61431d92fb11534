"""Two servers on one database both believe that they own the sessions."""

from __future__ import annotations

import asyncio
import contextlib
import random

from tests.support.fakes.faulty_proxy import Direction
from tests.system.soak.fault import Fault, Part, World

_HOLD_SECONDS = 2.0


class TwoServers:
    """The agents' connections break in a way that the first server cannot see, and the agents
    reconnect to a second server. Later the first server receives the last messages that they had
    sent it. The fence must refuse them."""

    name = "two-servers"
    parts = frozenset({Part.SERVER, Part.AGENT_NETWORK})
    # The first server would close the connections 20 s after the last bytes.
    seconds = (4.0, 14.0)
    lets_calls_finish = False

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        network = world.agent_network
        before = network.target
        async with world.second_server(chance) as second:
            try:
                network.mute(Direction.TO_TARGET)
                await asyncio.sleep(_HOLD_SECONDS)  # enough agents send something meanwhile
                held_bytes = network.held_bytes
                network.target = second.port
                network.strand()
                await asyncio.sleep(seconds)
                await network.heal()  # delivers the held bytes to the first server
                await asyncio.sleep(chance.uniform(0.5, 2.0))
            finally:
                await network.heal()
                network.target = before
                if chance.random() < 0.5:
                    with contextlib.suppress(TimeoutError):
                        await second.end()
                network.cut()
        return f"{held_bytes} bytes came to the first server {seconds:.1f} s after its fence fell"


FAULTS: tuple[Fault, ...] = (TwoServers(),)
