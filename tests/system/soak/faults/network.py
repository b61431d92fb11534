"""Each of the networks: cut inside messages, half-open, late, out of order, refused."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from tests.support.fakes.faulty_proxy import Direction
from tests.system.soak.fault import Fault, Network, Part, World

_NETWORKS = {
    "agents": Part.AGENT_NETWORK,
    "readers": Part.READER_NETWORK,
    "database": Part.DATABASE_NETWORK,
    "bus": Part.BUS_NETWORK,
}


@dataclass(frozen=True)
class _NetworkFault:
    """`whose` is the network, a key of `_NETWORKS`."""

    whose: str
    lets_calls_finish = False

    @property
    def parts(self) -> frozenset[Part]:
        return frozenset({_NETWORKS[self.whose]})

    def _of(self, world: World, chance: random.Random) -> Network:
        match _NETWORKS[self.whose]:
            case Part.AGENT_NETWORK:
                return world.agent_network
            case Part.READER_NETWORK:
                return world.reader_network
            case Part.BUS_NETWORK:
                return world.bus_network.some(chance)
            case _:
                return world.database_network.some(chance)


class NetworkCut(_NetworkFault):
    """Cut one connection or all, again and again, in the middle of a message.

    On the database network about half of the cuts lose the answer to a commit, so that the server
    cannot know its outcome.
    """

    seconds = (3.0, 12.0)

    @property
    def name(self) -> str:
        return f"{self.whose}-cut"

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        network = self._of(world, chance)
        before = network.cuts
        try:
            async with asyncio.timeout(seconds):
                while True:
                    direction = chance.choice((Direction.TO_CALLER, Direction.TO_TARGET))
                    sizes = (1, chance.randrange(2, 200), chance.randrange(200, 20_000))
                    after = chance.choice(sizes)
                    network.cut_after(after, direction, everyone=chance.random() < 0.3)
                    await asyncio.sleep(chance.uniform(0.1, 1.0))
        except TimeoutError:
            pass
        finally:
            await network.heal()
        return f"{network.cuts - before} cuts in the middle of messages"


class HalfOpen(_NetworkFault):
    """Silence on connections that stay open. What is sent is held back or lost."""

    seconds = (4.0, 25.0)

    @property
    def name(self) -> str:
        return f"{self.whose}-half-open"

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        network = self._of(world, chance)
        directions = chance.choice((Direction.TO_CALLER, Direction.TO_TARGET, Direction.BOTH))
        swallow = chance.random() < 0.5
        network.mute(directions, swallow=swallow)
        try:
            await asyncio.sleep(seconds)
        finally:
            await network.heal()
        silent = "both ways" if directions is Direction.BOTH else str(directions.name).lower()
        return f"silent {silent}, {'lost' if swallow else 'held back'}: {seconds:.1f} s"


class OutOfOrder(_NetworkFault):
    """Each connection has a delay of its own that changes, so streams overtake each other."""

    lets_calls_finish = True

    seconds = (5.0, 20.0)

    @property
    def name(self) -> str:
        return f"{self.whose}-out-of-order"

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        network = self._of(world, chance)
        longest = chance.uniform(0.1, 1.0)
        network.delay(lambda _: chance.uniform(0.0, longest))
        try:
            await asyncio.sleep(seconds)
        finally:
            await network.heal()
        return f"each piece delayed by up to {longest * 1000:.0f} ms: {seconds:.1f} s"


class Refused(_NetworkFault):
    """All connections end, and new ones are refused for some time."""

    seconds = (2.0, 15.0)

    @property
    def name(self) -> str:
        return f"{self.whose}-refused"

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        network = self._of(world, chance)
        try:
            await network.refuse()
            network.cut()
            await asyncio.sleep(seconds)
        finally:
            await network.heal()
        return f"cut and refused: {seconds:.1f} s"


FAULTS: tuple[Fault, ...] = tuple(
    kind(whose)
    for kind in (NetworkCut, HalfOpen, OutOfOrder, Refused)
    for whose in _NETWORKS
    if not (kind is OutOfOrder and whose == "database")  # for the database that is DatabaseSlow
)
