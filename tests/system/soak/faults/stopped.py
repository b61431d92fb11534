"""SIGSTOP and SIGCONT: processes keep their connections but do nothing."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.system.soak.fault import Fault, Part, Process, Workspace, World
from tests.system.soak.faults.servers import names_of, some_servers
from tests.system.soak.faults.task_apps import some, tasks_of


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
        chosen = some_servers(world.servers, chance)
        with _stopped(chosen):
            await asyncio.sleep(seconds)
        await world.serving(*chosen)
        return f"{names_of(chosen)} for {seconds:.1f} s"


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


@dataclass(frozen=True)
class SomeStopped:
    """In some workspaces one process stops. Its connections stay open, but nothing comes."""

    name: str
    parts: frozenset[Part]
    process: Callable[[Workspace], Process]
    seconds = (0.5, 25.0)
    lets_calls_finish = True

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        chosen = some(world.workspaces, chance)
        with _stopped([self.process(one) for one in chosen]):
            await asyncio.sleep(seconds)
        return f"{tasks_of(chosen)} for {seconds:.1f} s"


FAULTS: tuple[Fault, ...] = (
    ServerStopped(),
    PostgresStopped(),
    SomeStopped("agents-stopped", frozenset({Part.AGENTS}), lambda one: one.agent),
    SomeStopped("task-apps-stopped", frozenset({Part.TASK_APPS}), lambda one: one.task_app),
)
