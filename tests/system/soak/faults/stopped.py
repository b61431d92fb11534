"""SIGSTOP and SIGCONT: processes keep their connections but do nothing."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.system.soak.fault import Fault, Part, Process, World
from tests.system.soak.faults.task_apps import some


@contextmanager
def _stopped(processes: Sequence[Process]) -> Iterator[None]:
    for process in processes:
        process.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.signal(signal.SIGCONT)


class ServerStopped:
    """A machine that hangs. The keepalive of its clients may close the connections meanwhile."""

    name = "server-stopped"
    parts = frozenset({Part.SERVER})
    seconds = (0.5, 25.0)
    lets_calls_finish = False

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        with _stopped([world.server]):
            await asyncio.sleep(seconds)
        await world.serving()
        return f"for {seconds:.1f} s"


class PostgresStopped:
    """All its processes stop, whatever they are doing."""

    name = "postgres-stopped"
    parts = frozenset({Part.POSTGRES})
    seconds = (0.5, 25.0)
    lets_calls_finish = True

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        with _stopped([world.postgres]):
            await asyncio.sleep(seconds)
        return f"for {seconds:.1f} s"


class AgentsStopped:
    """Their streams stay open, but nothing arrives."""

    name = "agents-stopped"
    parts = frozenset({Part.AGENTS})
    seconds = (0.5, 25.0)
    lets_calls_finish = True

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        chosen = some(world.workspaces, chance)
        with _stopped([one.agent for one in chosen]):
            await asyncio.sleep(seconds)
        return f"of task {', '.join(str(one.number) for one in chosen)} for {seconds:.1f} s"


class TaskAppsStopped:
    """They neither answer nor refuse."""

    name = "task-apps-stopped"
    parts = frozenset({Part.TASK_APPS})
    seconds = (0.5, 25.0)
    lets_calls_finish = True

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        chosen = some(world.workspaces, chance)
        with _stopped([one.task_app for one in chosen]):
            await asyncio.sleep(seconds)
        return f"of task {', '.join(str(one.number) for one in chosen)} for {seconds:.1f} s"


FAULTS: tuple[Fault, ...] = (
    ServerStopped(),
    PostgresStopped(),
    AgentsStopped(),
    TaskAppsStopped(),
)
