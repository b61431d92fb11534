"""Runs a simulation in virtual time: phase after phase, each measured for itself."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import structlog

from tests.fuzz.virtual_time import VirtualTimeLoop
from tests.sim.world import Size, World

# A killed process: its connections are reset at once. A machine that is gone: keepalive finds out.
RESET_SECONDS = 0.001
KEEPALIVE_SECONDS = 20.0

Report = Callable[[dict[str, Any]], None]
_Phase = tuple[str, Callable[[], Awaitable[None]] | None, float]


def simulate(
    size: Size, report: Report, *, phases: Sequence[str] = (), seconds: float = 10.0
) -> dict[str, Any]:
    """Run all phases, or those that are named, and return what was measured.

    `report` is called with each phase when it is over. `seconds`: how long most phases last, of
    virtual time. The same size gives the same result. Raises AssertionError if an entry or a
    follow's message was lost, or came twice.
    """
    random.seed(size.seed)  # the server spreads waits by it
    loop = VirtualTimeLoop()
    try:
        with _counted_logs() as logs:
            done = loop.run_until_complete(_run(size, report, phases, seconds))
    finally:
        loop.close()
    return {"phases": done, "logs": dict(sorted(logs.items()))}


async def _run(
    size: Size, report: Report, names: Sequence[str], seconds: float
) -> list[dict[str, Any]]:
    world = World(size)
    done = []
    try:
        await world.begin()
        for name, during, at_least in _phases(world, seconds):
            if not names or name in names:
                done.append(await world.phase(name, during, at_least))
                report(done[-1])
        await world.settle()
        world.check()
    finally:
        await world.end()
    return done


def _phases(world: World, seconds: float) -> Sequence[_Phase]:
    processes = world.size.processes
    third = max(1, processes // 3)
    return (
        ("steady", None, seconds),
        ("all followed tasks change at once", world.change_all_followed, 1.0),
        ("a process is killed", partial(world.kill_one, noticed_after=RESET_SECONDS), seconds),
        ("a machine is gone", partial(world.kill_one, noticed_after=KEEPALIVE_SECONDS), seconds),
        ("a third of the processes reconnect to the bus", partial(world.cut_bus, third), seconds),
        (
            "all processes reconnect to the bus",
            partial(world.cut_bus, processes),
            seconds,
        ),
        ("the bus loses 0.1 %", partial(world.lose_notes, 0.001, seconds), seconds),
        ("a process is cut off for 5 s", partial(world.silence, 5.0), 5.0 + seconds),
    )


@contextmanager
def _counted_logs() -> Iterator[Counter[str]]:
    """Count log events by name within the block, and print none."""
    counts: Counter[str] = Counter()

    def count(_: Any, __: str, event: Any) -> Any:
        counts[str(event["event"])] += 1
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[count])
    try:
        yield counts
    finally:
        structlog.configure(**before)
