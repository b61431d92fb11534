"""A whole run: processes, agents, followers and readers on one network and one Postgres."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from tasklogs_server.domain.errors import TaskLogsError
from tests.sim.agents import Agents
from tests.sim.costs import Costs
from tests.sim.fleet import Fleet
from tests.sim.followers import Followers
from tests.sim.measures import Measures, share
from tests.sim.network import BusKind, Network
from tests.sim.primary import Primary, Row

_LOAD_PERIOD_SECONDS = 0.001
_FOLLOW_RAMP_SECONDS = 5.0


@dataclass(frozen=True)
class Size:
    """What a run simulates. Rates are per second over all processes."""

    processes: int
    tasks: int
    appends: float
    followers: int
    reads: float
    bus: BusKind = "nats"
    postgres_cores: int = 16
    seed: int = 1
    costs: Costs = field(default_factory=Costs)


class World:
    """The parts of a run. It must be made while its event loop runs."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.measures = Measures()
        rng = random.Random(size.seed)
        self._rng = random.Random(rng.random())
        self.primary = Primary(size.costs, self.measures, cores=size.postgres_cores)
        self.network = Network(
            size.bus,
            size.costs,
            random.Random(rng.random()),
            self.primary.processor,
            self.measures.counts,
        )
        self.fleet = Fleet(self.network, self.primary, random.Random(rng.random()))
        self.agents = Agents(self.fleet, size.costs, self.measures, random.Random(rng.random()))
        self.followers = Followers(
            self.agents, self.fleet, self.primary, self.measures, random.Random(rng.random())
        )
        self._tasks = [UUID(int=number) for number in range(1, size.tasks + 1)]
        self._followed: list[UUID] = []
        self._load: list[asyncio.Task[None]] = []
        self._reading: set[asyncio.Task[None]] = set()

    async def begin(self) -> None:
        """Start all processes, with all agents connected, and let the followers begin."""
        gc.disable()  # it would look at a million sessions again and again
        servers = [self.fleet.add() for _ in range(self.size.processes)]
        for number, task_id in enumerate(self._tasks):
            self.primary.rows[task_id] = Row()
            self.agents.place(task_id, servers[number % len(servers)])
        gc.freeze()
        gc.enable()
        for server in servers:
            server.start()
        await asyncio.sleep(2.0)
        # One follower for each: those of one feed are woken in the order of their addresses.
        self._followed = self._rng.sample(self._tasks, self.size.followers)
        for number, task_id in enumerate(self._followed):
            self.followers.add(task_id)
            if number % 10 == 0:
                await asyncio.sleep(_FOLLOW_RAMP_SECONDS / (self.size.followers / 10))
        self._load = [
            asyncio.create_task(self._at_rate(self.size.appends, self._append)),
            asyncio.create_task(self._at_rate(self.size.reads, self._read)),
        ]
        await asyncio.sleep(3.0)
        self.check()

    async def phase(
        self, name: str, during: Callable[[], Awaitable[None]] | None, seconds: float
    ) -> dict[str, Any]:
        """Measure for this time, or as long as `during` lasts if that is longer."""
        loop = asyncio.get_running_loop()
        self.measures.reset()
        began, began_real = loop.time(), time.process_time()
        cpu = {one.id: one.processor.used_seconds for one in self.fleet.alive}
        nodes = list(self.network.node_seconds)
        postgres = self.primary.processor.used_seconds
        gaps = {one.id: one.bus.gaps for one in self.fleet.alive}
        if during is not None:
            await during()
        await asyncio.sleep(max(0.0, began + seconds - loop.time()))
        self.check()
        lasted = loop.time() - began
        alive = self.fleet.alive
        used = [one.processor.used_seconds - cpu[one.id] for one in alive]
        summary = self.measures.summary(lasted)
        summary["name"] = name
        summary["gaps"] = sum(one.bus.gaps - gaps[one.id] for one in alive)
        summary["cpu"] = {
            "process mean": share(used, lasted)[0],
            "process max": share(used, lasted)[1],
            "postgres": round(
                (self.primary.processor.used_seconds - postgres)
                / lasted
                / self.size.postgres_cores,
                4,
            ),
            "bus node max": share(
                [
                    now - before
                    for now, before in zip(self.network.node_seconds, nodes, strict=True)
                ],
                lasted,
            )[1],
        }
        summary["real_cpu_seconds"] = round(time.process_time() - began_real, 1)
        return summary

    # What happens in phases

    async def kill_one(self, *, noticed_after: float) -> None:
        """Kill a process, and wait until all its agents and followers are back."""
        victim = self.fleet.alive[0]
        await victim.kill()
        self.agents.lose(victim, noticed_after=noticed_after)
        self.followers.lose(victim, noticed_after=noticed_after)
        await self.until(lambda: not self.agents.away and not self.followers.away, 120)

    async def change_all_followed(self) -> None:
        """Let every followed task change at the same moment, and wait until all is seen."""
        for task_id in self._followed:
            self.agents.produce(self.agents.all[task_id])
        await asyncio.sleep(1.0)

    async def cut_bus(self, count: int) -> None:
        """Break the connections of some processes to the bus."""
        for server in self.fleet.alive[:count]:
            server.transport.cut()
        await asyncio.sleep(0.6)

    async def silence(self, seconds: float) -> None:
        """Let nothing come through to and from a process for a while, without telling it."""
        victim = self.fleet.alive[0]
        self.network.cut_off.add(victim.id)
        await asyncio.sleep(seconds)
        self.network.cut_off.clear()

    async def lose_notes(self, loss: float, seconds: float) -> None:
        """Lose a share of all deliveries for a while."""
        self.network.loss = loss
        await asyncio.sleep(seconds)
        self.network.loss = 0.0

    async def settle(self) -> None:
        """End the load, and wait until everything is stored and seen."""
        for one in self._load:
            one.cancel()
        await asyncio.gather(*self._load, *self._reading, return_exceptions=True)
        await self.until(lambda: not self.unstored and not self.followers.behind, 60)

    @property
    def unstored(self) -> int:
        """How many agents have entries that were not acknowledged."""
        return sum(one.acked < one.produced for one in self.agents.all.values())

    async def until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait for a condition. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 (a condition of many parts)
                await asyncio.sleep(0.05)

    def check(self) -> None:
        """Raise what must not happen."""
        self.fleet.check()
        if self.followers.failures:
            raise self.followers.failures[0]
        assert not self.followers.wrong, self.followers.wrong[:5]

    async def end(self) -> None:
        """End everything."""
        for one in (*self._load, *self._reading):
            one.cancel()
        await asyncio.gather(*self._load, *self._reading, return_exceptions=True)
        await self.followers.stop()
        for server in self.fleet.alive:
            await server.stop()
        await self.agents.stop()
        gc.unfreeze()

    # Load

    async def _at_rate(self, per_second: float, happen: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        due_at = loop.time()
        while per_second > 0:
            due_at += self._rng.expovariate(per_second)
            if due_at - loop.time() > _LOAD_PERIOD_SECONDS:
                await asyncio.sleep(due_at - loop.time())
            happen()

    def _append(self) -> None:
        self.agents.produce(self.agents.all[self._rng.choice(self._tasks)])

    def _read(self) -> None:
        reading = asyncio.create_task(self._live_read(self._rng.choice(self._tasks)))
        self._reading.add(reading)
        reading.add_done_callback(self._reading.discard)

    async def _live_read(self, task_id: UUID) -> None:
        agent, server = self.agents.all[task_id], self.fleet.any()
        loop = asyncio.get_running_loop()
        began, acked, is_here = loop.time(), agent.acked, agent.server is server
        await asyncio.sleep(self.size.costs.hop)
        await server.processor.work(self.size.costs.statement)
        try:
            synced = await server.live_read(task_id)
        except TaskLogsError:
            self.measures.counts["reads refused"] += 1
            return
        await server.processor.work(self.size.costs.message)
        # I6: what was acknowledged before the read began is in it. An epoch takes a revision, too.
        assert synced.revision > acked or not acked, (synced, acked)
        (self.measures.read_here if is_here else self.measures.read).add(loop.time() - began)
