"""Two agents with the same token, on the same task app."""

from __future__ import annotations

import asyncio
import random
import signal

from tests.system.soak.fault import Fault, Part, World


class TwoAgents:
    """A second agent connects while the first one works, and ends after some time.

    The first one reconnects within a minute. In about half of the cases it is restarted first.
    """

    name = "two-agents"
    parts = frozenset({Part.AGENTS})
    seconds = (2.0, 15.0)
    lets_calls_finish = False

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        workspace = chance.choice(world.workspaces)
        is_started_again = chance.random() < 0.5
        is_told = chance.random() < 0.5
        async with workspace.another_agent() as second:
            await asyncio.sleep(seconds)
            if is_told:
                second.signal(signal.SIGINT)
                await asyncio.sleep(0.5)
        if is_started_again:
            await workspace.agent.kill()
            await workspace.agent.start()
        left = "said goodbye" if is_told else "was killed"
        then = "the first was restarted" if is_started_again else "the first reconnects by itself"
        return f"of task {workspace.number} for {seconds:.1f} s; it {left}, {then}"


FAULTS: tuple[Fault, ...] = (TwoAgents(),)
