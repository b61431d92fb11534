"""SIGKILL of servers, Postgres, agents, task apps, or an agent and its task app together."""

from __future__ import annotations

import asyncio
import random

from tests.system.soak.fault import Fault, Part, World
from tests.system.soak.faults.servers import names_of, some_servers
from tests.system.soak.faults.task_apps import ordered, some, tasks_of

_STEADY_SECONDS = 3.0


class ServerKilled:
    """One server, rarely more. Each starts again after a time."""

    name = "server-killed"
    parts = frozenset({Part.SERVER})
    seconds = (0.0, 8.0)
    lets_calls_finish = False

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        chosen = some_servers(world.servers, chance)
        await asyncio.gather(*(one.kill() for one in chosen))
        try:
            await asyncio.sleep(seconds)
        finally:
            for one in chosen:
                await one.start()
        await world.serving(*chosen)
        return f"{names_of(chosen)} away for {seconds:.1f} s"


class PostgresKilled:
    """SIGKILL of the postmaster. Postgres recovers from its WAL."""

    name = "postgres-killed"
    parts = frozenset({Part.POSTGRES})
    seconds = (0.0, 8.0)
    lets_calls_finish = True

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        await world.postgres.kill()
        try:
            await asyncio.sleep(seconds)
        finally:
            await world.postgres.start()
        return f"away for {seconds:.1f} s"


class AgentsKilled:
    """Only agents are killed. Their task apps go on talking."""

    name = "agents-killed"
    parts = frozenset({Part.AGENTS})
    seconds = (0.0, 8.0)
    lets_calls_finish = True

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        chosen = some(world.workspaces, chance)
        await asyncio.gather(*(one.agent.kill() for one in chosen))
        try:
            await asyncio.sleep(seconds)
        finally:
            for one in chosen:
                await one.agent.start()
        return f"{tasks_of(chosen)}: away {seconds:.1f} s"


class WorkspacesKilled:
    """Agent and task app together, as when a machine dies. What was shown 250 ms before is stored
    nevertheless. The task app's own saved state is older, if there is one."""

    name = "workspaces-killed"
    parts = frozenset({Part.AGENTS, Part.TASK_APPS})
    seconds = (0.5, 4.0)
    lets_calls_finish = True

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        chosen = some(world.workspaces, chance)
        if chance.random() < 0.5:
            for one in chosen:
                await ordered(one, "save")
        await asyncio.sleep(chance.uniform(0.0, 2.0))
        await asyncio.gather(*(part.kill() for one in chosen for part in (one.agent, one.task_app)))
        try:
            await asyncio.sleep(seconds)
        finally:
            for one in chosen:
                await one.task_app.start()
                await one.agent.start()
        # A second kill during the recovery would show little about the promise.
        await asyncio.sleep(_STEADY_SECONDS)
        return f"{tasks_of(chosen)}: away {seconds:.1f} s"


FAULTS: tuple[Fault, ...] = (
    ServerKilled(),
    PostgresKilled(),
    AgentsKilled(),
    WorkspacesKilled(),
)
