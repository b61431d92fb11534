"""One worker of a server is killed, or hangs. The server's supervisor replaces it."""

from __future__ import annotations

import asyncio
import random
import signal
from contextlib import suppress

import psutil

from tests.system.soak.fault import Fault, Part, Process, World


class WorkerKilled:
    """SIGKILL, as the kernel does when memory runs out."""

    name = "worker-killed"
    parts = frozenset({Part.SERVER, Part.WORKERS})
    seconds = (0.0, 3.0)
    lets_calls_finish = False

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        server = world.servers[-1]
        worker = _worker(server, chance)
        with suppress(psutil.NoSuchProcess):
            worker.kill()
        await asyncio.sleep(seconds)
        await world.serving(server)
        return f"process {worker.pid} of {server.name}"


class WorkerStopped:
    """SIGSTOP. If that takes long, the supervisor kills it."""

    name = "worker-stopped"
    parts = frozenset({Part.SERVER, Part.WORKERS})
    seconds = (0.5, 25.0)
    lets_calls_finish = False

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        server = world.servers[-1]
        worker = _worker(server, chance)
        with suppress(psutil.NoSuchProcess):
            worker.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            with suppress(psutil.NoSuchProcess):
                worker.send_signal(signal.SIGCONT)
        await world.serving(server)
        return f"process {worker.pid} of {server.name} for {seconds:.1f} s"


def _worker(server: Process, chance: random.Random) -> psutil.Process:
    return chance.choice(psutil.Process(server.pid).children())


FAULTS: tuple[Fault, ...] = (WorkerKilled(), WorkerStopped())
