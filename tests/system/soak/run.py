"""One run: start the system, put load on it, inject faults, let it settle, read what is stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.fixtures.conditions import until
from tests.system.soak.ending import calm_down, let_go, settle
from tests.system.soak.fault import Fault, Part
from tests.system.soak.followers import Follower, following
from tests.system.soak.injection import Injection
from tests.system.soak.journal import Journal
from tests.system.soak.ledger import Ledger, read_ledger, write_ending
from tests.system.soak.options import Options
from tests.system.soak.plants import UP
from tests.system.soak.readers import Readers
from tests.system.soak.real_task_app import FAKES_ONLY
from tests.system.soak.schedule import all_faults, plan
from tests.system.soak.workspace import Load
from tests.system.soak.world import Deployment, World, running_world

_WARM_UP_SECONDS = 120.0

Tell = Callable[[str], None]


def chosen(options: Options) -> list[Fault]:
    """Return the requested kinds of faults that are possible with these options.

    ValueError if no kind has such a name.
    """
    only, missing = options.only, _missing(options)
    kinds = [
        kind
        for kind in all_faults()
        if not kind.parts & missing and not (options.real_agentapi and kind.name in FAKES_ONLY)
    ]
    if not only:
        return kinds
    for name in only:
        if name != "none" and not any(kind.name.startswith(name) for kind in kinds):
            known = ", ".join(kind.name for kind in kinds)
            raise ValueError(f"no kind of fault begins with {name!r}; there are: {known}")
    return [kind for kind in kinds if any(kind.name.startswith(name) for name in only)]


def _missing(options: Options) -> set[Part]:
    """Return the parts that a run does not have."""
    missing = set()
    processes = options.servers + options.workers - 1
    if processes == 1:
        missing.add(Part.BUS_NETWORK)
    if processes == 1 or options.bus != "nats":
        missing.add(Part.BUS_NODES)
    if options.workers == 1:
        missing.add(Part.WORKERS)
    return missing


async def soak(options: Options, directory: Path, tell: Tell) -> Ledger:
    """Run once, with all files in `directory`. Returns the ledger of the run."""
    kinds = chosen(options)
    planned = plan(
        options.seed,
        kinds,
        options.seconds,
        quiet_seconds=options.quiet_seconds,
        longest_seconds=options.longest_seconds,
    )
    tell(
        f"seed {options.seed}, {options.tasks} tasks, {options.servers} servers"
        f"{'' if options.servers == 1 else f' that meet over {options.bus}'},"
        f" {len(planned)} faults of {len(kinds)} kinds"
    )
    load = Load(options.seed, options.pause, is_real=options.real_agentapi)
    began = time.monotonic()
    deployment = Deployment(
        *(options.tasks, options.servers, options.workers),
        *(options.bus, options.small_disk, options.plants),
    )
    async with running_world(directory, deployment, load) as world:
        async with AsyncExitStack() as stack:
            followers = await _followers(world, stack)
            (directory / UP).touch()
            tell(f"up after {time.monotonic() - began:.0f} s; in {directory}")
            faults = Journal(directory / "faults.jsonl")
            reads = Journal(directory / "reads.jsonl")
            tasks = [workspace.task for workspace in world.workspaces]
            address = world.reader_network.address
            readers = Readers(address, tasks, reads, options.seed, options.read_pause)
            async with _running(readers.read_repeatedly()):
                injection = Injection(world, faults, tell)
                await injection.run(planned, options.seconds, options.least_faults)
                ending = await calm_down(
                    *(world, readers, followers, options.calm_seconds, options.settle_seconds)
                )
                tell(f"recovered after {ending.recovered_after_seconds:.1f} s")
                await settle(world, ending, followers, options.settle_seconds)
        await let_go(world, ending, options.settle_seconds)
        write_ending(directory, ending)
        tell(f"settled after {ending.settled_after_seconds:.1f} s")
    return read_ledger(directory, [(one.task, one.directory) for one in world.workspaces], ending)


async def _followers(world: World, stack: AsyncExitStack) -> list[Follower]:
    """Begin to follow every task. Returns when all followers have seen something."""
    followers = [
        follower
        for one in world.workspaces
        for follower in await stack.enter_async_context(
            following(world.reader_network.address, one.task, one.directory)
        )
    ]
    await until(
        lambda: all(one.revision or one.is_over for one in followers), seconds=_WARM_UP_SECONDS
    )
    return followers


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run a coroutine beside the block. Its error is raised at the end of the block."""
    running = asyncio.create_task(work)
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait({running})
    if not running.cancelled() and (error := running.exception()) is not None:
        raise error
