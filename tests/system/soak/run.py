"""One run: start the system, put load on it, inject faults, let it settle, read what is stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tasklogs import LogSource, TaskLogsClient
from tasklogs.errors import StoreUnavailable, TaskLogsRpcError
from tests.support.fixtures.conditions import until
from tests.system.soak.fault import Fault
from tests.system.soak.followers import Follower, following
from tests.system.soak.injection import Injection
from tests.system.soak.journal import Journal
from tests.system.soak.ledger import Ending, Ledger, read_ledger
from tests.system.soak.options import Options
from tests.system.soak.readers import Readers
from tests.system.soak.real_task_app import FAKES_ONLY
from tests.system.soak.schedule import all_faults, plan
from tests.system.soak.stored import Stored, read_stored
from tests.system.soak.workspace import Load, Workspace
from tests.system.soak.world import World, running_world

_WARM_UP_SECONDS = 120.0
_LOOK_EVERY_SECONDS = 0.2

Tell = Callable[[str], None]


def chosen(only: Sequence[str], *, real_agentapi: bool = False) -> list[Fault]:
    """Return the requested kinds of faults. ValueError if no kind has such a name.

    `real_agentapi`: only those that are possible with it.
    """
    kinds = [kind for kind in all_faults() if not (real_agentapi and kind.name in FAKES_ONLY)]
    if not only:
        return kinds
    for name in only:
        if name != "none" and not any(kind.name.startswith(name) for kind in kinds):
            known = ", ".join(kind.name for kind in kinds)
            raise ValueError(f"no kind of fault begins with {name!r}; there are: {known}")
    return [kind for kind in kinds if any(kind.name.startswith(name) for name in only)]


async def soak(options: Options, directory: Path, tell: Tell) -> Ledger:
    """Run once, with all files in `directory`. Returns the ledger of the run."""
    kinds = chosen(options.only, real_agentapi=options.real_agentapi)
    planned = plan(
        options.seed,
        kinds,
        options.seconds,
        quiet_seconds=options.quiet_seconds,
        longest_seconds=options.longest_seconds,
    )
    tell(f"seed {options.seed}, {options.tasks} tasks, {len(planned)} faults of {len(kinds)} kinds")
    load = Load(options.seed, options.pause, is_real=options.real_agentapi)
    began = time.monotonic()
    async with (
        running_world(directory, options.tasks, load, small_disk=options.small_disk) as world,
        AsyncExitStack() as stack,
    ):
        tasks = [workspace.task for workspace in world.workspaces]
        address = world.reader_network.address
        followers = [
            follower
            for one in world.workspaces
            for follower in await stack.enter_async_context(
                following(address, one.task, one.directory)
            )
        ]
        await until(
            lambda: all(follower.revision for follower in followers), seconds=_WARM_UP_SECONDS
        )
        tell(f"up after {time.monotonic() - began:.0f} s; in {directory}")
        faults = Journal(directory / "faults.jsonl")
        reads = Journal(directory / "reads.jsonl")
        readers = Readers(address, tasks, reads, options.seed, options.read_pause)
        async with _running(readers.read_repeatedly()):
            await Injection(world, faults, tell).run(planned, options.seconds, options.least_faults)
            ending = await _settle(world, followers, options.settle_seconds)
        tell(f"settled after {ending.settled_after_seconds:.1f} s")
    return read_ledger(directory, [(one.task, one.directory) for one in world.workspaces], ending)


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


async def _settle(world: World, followers: Sequence[Follower], seconds: float) -> Ending:
    """Wait until every part agrees with the task apps, then read the store."""
    ending = Ending()
    began = time.monotonic()
    deadline = began + seconds
    async with TaskLogsClient(f"127.0.0.1:{world.server.port}") as client:
        settling = [_agrees(client, one, deadline) for one in world.workspaces]
        for one, disagrees in zip(world.workspaces, await asyncio.gather(*settling), strict=True):
            if disagrees:
                ending.unsettled.append(f"{one.task}: {disagrees}")
        for one in world.workspaces:
            ending.stored[one.task] = await _stored(client, world, one.task, deadline)
    for index, follower in enumerate(followers):
        one = world.workspaces[index // 2]
        while follower.revision < ending.stored[one.task].revision and not follower.is_over:
            if time.monotonic() > deadline:
                ending.unsettled.append(f"{one.task}: a follower is at {follower.revision}")
                break
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
    ending.settled_after_seconds = time.monotonic() - began
    return ending


async def _stored(client: TaskLogsClient, world: World, task: str, deadline: float) -> Stored:
    """Read what is stored, as soon as the store answers: a busy machine may hold it up."""
    while True:
        try:
            return await read_stored(client, world.postgres.dsn(), task)
        except StoreUnavailable as error:
            if time.monotonic() > deadline or error.retry_after is None:
                raise
            await asyncio.sleep(error.retry_after.total_seconds())


async def _agrees(client: TaskLogsClient, workspace: Workspace, deadline: float) -> str:
    """Wait until the store has what the task app shows. Returns the difference, "" if none."""
    disagrees = "the task app did not say `stable` in time"
    try:
        async with asyncio.timeout_at(
            asyncio.get_running_loop().time() + deadline - time.monotonic()
        ):
            while True:
                shown = await workspace.settle()
                disagrees = await _differs(client, workspace.task, shown)
                if not disagrees:
                    return ""
                await asyncio.sleep(_LOOK_EVERY_SECONDS)
    except TimeoutError:
        return disagrees


async def _differs(client: TaskLogsClient, task: str, shown: list[tuple[int, str]]) -> str:
    try:
        log = await client.get(task, source=LogSource.SNAPSHOT)
        stored = [(one.id, one.content) for one in await log.all()]
    except TaskLogsRpcError as error:
        return f"cannot be read: {error}"
    if stored == shown:
        return ""
    return f"shows {len(shown)} messages, the store has {len(stored)} in epoch {log.epoch}"
