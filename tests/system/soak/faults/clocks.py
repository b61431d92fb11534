"""Wall clocks that jump by hours in both directions: the server's, and those of workspaces."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from tests.system.soak.fault import Fault, Part, World
from tests.system.soak.faults.task_apps import some
from tests.system.soak.moved_clock import move

_HOURS = 6.0
_EVERY_SECONDS = 3.0


class ServerClockJumps:
    """The server's clock is set again and again."""

    name = "server-clock-jumps"
    parts = frozenset({Part.CLOCKS})
    seconds = (4.0, 20.0)
    lets_calls_finish = True

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        return await _jump([world.server_clock], chance, seconds)


class WorkspaceClocksJump:
    """The clocks of some agents and their task apps, which share a machine."""

    name = "workspace-clocks-jump"
    parts = frozenset({Part.CLOCKS})
    seconds = (4.0, 20.0)
    lets_calls_finish = True

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        clocks = [one.clock for one in some(world.workspaces, chance)]
        return await _jump(clocks, chance, seconds)


async def _jump(clocks: list[Path], chance: random.Random, seconds: float) -> str:
    jumps: list[float] = []
    try:
        async with asyncio.timeout(seconds):
            while True:
                hours = chance.uniform(-_HOURS, _HOURS)
                jumps.append(hours)
                for clock in clocks:
                    move(clock, hours * 3600)
                await asyncio.sleep(chance.uniform(0.2, 1.0) * _EVERY_SECONDS)
    except TimeoutError:
        pass
    finally:
        for clock in clocks:
            move(clock, 0.0)
    return (
        f"{len(clocks)} clocks at {', '.join(f'{one:+.1f}' for one in jumps)} h, then correct again"
    )


FAULTS: tuple[Fault, ...] = (ServerClockJumps(), WorkspaceClocksJump())
