"""Nodes of the NATS cluster are killed, or hang. At least one goes on."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Sequence

from tests.system.soak.fault import BusNode, Fault, Part, World


class BusNodesKilled:
    """What a node had not passed on yet is lost."""

    name = "bus-nodes-killed"
    parts = frozenset({Part.BUS_NODES})
    seconds = (1.0, 15.0)
    lets_calls_finish = True

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        chosen = _some(world, chance)
        await asyncio.gather(*(one.kill() for one in chosen))
        try:
            await asyncio.sleep(seconds)
        finally:
            for one in chosen:
                await one.start()
        return f"{_names_of(chosen)} away for {seconds:.1f} s"


class BusNodesStopped:
    """Connections to a frozen node stay open, and nothing comes."""

    name = "bus-nodes-stopped"
    parts = frozenset({Part.BUS_NODES})
    seconds = (1.0, 20.0)
    lets_calls_finish = True

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        chosen = _some(world, chance)
        for one in chosen:
            one.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            for one in chosen:
                one.signal(signal.SIGCONT)
        return f"{_names_of(chosen)} for {seconds:.1f} s"


def _some(world: World, chance: random.Random) -> Sequence[BusNode]:
    nodes = list(world.bus_nodes)
    return chance.sample(nodes, chance.randint(1, len(nodes) - 1))


def _names_of(nodes: Sequence[BusNode]) -> str:
    return ", ".join(one.name for one in nodes)


FAULTS: tuple[Fault, ...] = (BusNodesKilled(), BusNodesStopped())
