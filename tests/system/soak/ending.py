"""The end of a run: everything agrees, every server answers, and then every server is idle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import asyncpg

from tasklogs import LogSource, TaskLogsClient
from tasklogs.errors import StoreUnavailable, TaskLogsRpcError
from tests.system.soak.contents import mark
from tests.system.soak.followers import Follower
from tests.system.soak.ledger import Ending, Sessions
from tests.system.soak.readers import Readers
from tests.system.soak.server import IDLE_SECONDS, Server
from tests.system.soak.stored import Stored, StoredEntry, read_stored
from tests.system.soak.workspace import Workspace
from tests.system.soak.world import World

_LOOK_EVERY_SECONDS = 0.2
_TAIL_ENTRIES = 8
_NAMED = """
    SELECT count(*) FROM tasks WHERE session_lost_at IS NULL AND session_process IS NOT NULL
     GROUP BY session_process ORDER BY 1"""


async def calm_down(
    world: World,
    readers: Readers,
    followers: Sequence[Follower],
    seconds: float,
    recovery_seconds: float,
) -> Ending:
    """Let the load go on without faults, for so long after all has recovered."""
    ending = Ending(used_since=world.used_since)
    began = time.monotonic()
    deadline = began + recovery_seconds
    ending.sessions = await _sessions(world, deadline)
    for server in world.servers:
        async with TaskLogsClient(server.address) as client:
            live = [_is_live(client, one.task, deadline) for one in world.workspaces]
            refused = [one for one in await asyncio.gather(*live) if one]
            ending.unsettled += [f"{server.name} does not recover: {one}" for one in refused]
    # A client may wait for some seconds before it connects again.
    while readers.answered_at < began or not all(one.is_connected for one in followers):
        if time.monotonic() > deadline:
            ending.unsettled.append("a reader or a follower does not connect again")
            break
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
    ending.recovered_after_seconds = time.monotonic() - began
    if ending.sessions.agree and not ending.unsettled:
        calm_since = time.monotonic()
        await asyncio.sleep(seconds)
        ending.calm = calm_since, time.monotonic()
    return ending


async def _is_live(client: TaskLogsClient, task: str, deadline: float) -> str:
    """Wait until a live read is answered. Returns the last refusal, "" if it was."""
    while True:
        try:
            await client.get(task, source=LogSource.LIVE, tail=0)
        except TaskLogsRpcError as error:
            if time.monotonic() > deadline:
                return f"{task}: {error}"
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
        else:
            return ""


async def settle(
    world: World, ending: Ending, followers: Sequence[Follower], seconds: float
) -> None:
    """Wait until every part agrees with the task apps, then read the store."""
    began = time.monotonic()
    deadline = began + seconds
    async with TaskLogsClient(world.servers[0].address) as client:
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
    ending.unsettled += await _answers_everywhere(world, ending, deadline)
    ending.sessions = await _sessions(world, deadline)
    ending.settled_after_seconds = time.monotonic() - began


async def _answers_everywhere(world: World, ending: Ending, deadline: float) -> list[str]:
    """Wait until a live read of each task at each server has what is stored."""

    async def answers(server: Server) -> list[str]:
        async with TaskLogsClient(server.address) as client:
            waiting = [_answers(client, one.task, ending, deadline) for one in world.workspaces]
            return [
                f"{one.task} at {server.name}: {what}"
                for one, what in zip(world.workspaces, await asyncio.gather(*waiting), strict=True)
                if what
            ]

    return [one for found in await asyncio.gather(*map(answers, world.servers)) for one in found]


async def _answers(client: TaskLogsClient, task: str, ending: Ending, deadline: float) -> str:
    stored = ending.stored[task]
    while True:
        try:
            log = await client.get(task, source=LogSource.LIVE, tail=_TAIL_ENTRIES)
            entries = [
                StoredEntry(one.id, one.revision, mark(one.content)) for one in await log.all()
            ]
            if entries == stored.epochs[stored.last_epoch][-_TAIL_ENTRIES:]:
                return ""
            what = f"a live read has {entries[-1:]} in epoch {log.epoch}"
        except TaskLogsRpcError as error:
            what = f"a live read is refused: {error}"
        if time.monotonic() > deadline:
            return what
        await asyncio.sleep(_LOOK_EVERY_SECONDS)


async def _sessions(world: World, deadline: float) -> Sessions:
    """Wait until the servers have the sessions that the store names. Returns what was last seen."""
    while True:
        held = [count for one in world.servers for count in await one.sessions()]
        sessions = Sessions(len(world.workspaces), held, await _named(world))
        if sessions.agree or time.monotonic() > deadline:
            return sessions
        await asyncio.sleep(_LOOK_EVERY_SECONDS)


async def _named(world: World) -> list[int]:
    """Return how many sessions the store names of each process, in ascending order."""
    connection = await asyncpg.connect(world.postgres.dsn())
    try:
        return [row["count"] for row in await connection.fetch(_NAMED)]
    finally:
        await connection.close()


async def let_go(world: World, ending: Ending, seconds: float) -> None:
    """End the agents, then wait until the servers are idle, and note what they still hold."""
    await asyncio.gather(*(one.agent.end() for one in world.workspaces))
    deadline = time.monotonic() + seconds
    for server in world.servers:
        while open_calls := await server.open_calls():
            if time.monotonic() > deadline:
                ending.unsettled.append(f"{server.name}: {open_calls} calls do not end")
                break
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
    ending.idle_since = time.monotonic() + IDLE_SECONDS  # what calls held is gone then
    await asyncio.sleep(3 * IDLE_SECONDS)


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
