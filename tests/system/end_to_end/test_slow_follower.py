"""Followers that stop reading under full load cost the server nothing, and catch up later.

By hand, for one minute:
SLOW_FOLLOWER_SECONDS=60 pytest --timeout=600 --log-cli-level=INFO <this file>
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil

from tasklogs import LogSource, TaskLogsClient
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry, tail_delta
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.ports import lasting_port
from tests.support.fixtures.reports import TASK, make_active
from tests.support.fixtures.server import Server
from tests.system.end_to_end.followed_events import following
from tests.system.end_to_end.programs import program, serve_command

STALL_SECONDS = float(os.environ.get("SLOW_FOLLOWER_SECONDS", "3"))
STALL_BYTES = 64 * 1024 * 1024
"""At least this much is committed meanwhile, so that unbounded queues would show."""
STALLED = 5
ENTRY_BYTES = 100_000
GROWTH_MAY_BE_BYTES = 24 * 1024 * 1024
"""For the allocators, and for what gRPC buffers of a message before it sees that nobody reads."""

_log = logging.getLogger(__name__)


@dataclass
class Load:
    """A task app that redraws its tail, grows it and appends, as fast as the store commits."""

    agent: ScriptedAgent
    chance: random.Random
    stops: bool = False
    commits: int = 0
    entries: int = 0
    committed_bytes: int = 0
    committed: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Append until told to stop. One append is in progress while the next is made."""
        screens = [self.chance.randbytes(ENTRY_BYTES // 2).hex() for _ in range(8)]
        while not self.stops:
            screen = self.chance.choice(screens)
            match self.commits % 20:
                case 0:
                    await self.agent.append(
                        open_epoch=self.commits == 0, entries=[log_entry(self.entries, screen)]
                    )
                    self.entries += 1
                case 1 | 3 | 5 | 7:
                    keep = self.chance.randrange(len(screen) // 2)
                    await self.agent.append(tail=tail_delta(self.entries - 1, keep, screen))
                case _:
                    await self.agent.append(entries=[log_entry(self.entries - 1, screen)])
            await self.agent.acked(self.agent.sent - 1 if self.agent.sent > 1 else 1)
            self.commits += 1
            self.committed.set()
            self.committed_bytes += len(screen)


@dataclass
class Memory:
    """The resident memory of a process, sampled repeatedly."""

    pid: int
    seen: list[tuple[float, int]] = field(default_factory=list)

    async def watch(self) -> None:
        process = psutil.Process(self.pid)
        while True:
            self.seen.append((time.monotonic(), process.memory_info().rss))
            await asyncio.sleep(0.05)

    def most_bytes(self, since: float, until: float = float("inf")) -> int:
        return max(rss for when, rss in self.seen if since <= when <= until)


@asynccontextmanager
async def served(directory: Path, dsn: str) -> AsyncIterator[tuple[Server, int]]:
    """Run a server as a process. Yields its pid as well."""
    port = lasting_port()
    async with (
        program(directory / "server", *serve_command(port, dsn)) as running,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        async with asyncio.timeout(DEADLINE_SECONDS):
            await channel.channel_ready()
        yield Server(f"127.0.0.1:{port}", dsn, channel), running.pid


async def test_followers_that_stop_reading_cost_the_server_nothing_and_catch_up(
    database: str, tmp_path: Path
) -> None:
    async with served(tmp_path, database) as (server, pid), AsyncExitStack() as stack:
        token = (await server.create_task()).agent_token
        await make_active(server)
        agent = await stack.enter_async_context(ScriptedAgent.connect(server, token))
        agent.answer_syncs()
        client = await stack.enter_async_context(TaskLogsClient(server.address))
        keeps_up, *stalled = [
            await stack.enter_async_context(following(client, TASK, deltas=number % 2 == 0))
            for number in range(STALLED + 1)
        ]
        for one in (keeps_up, *stalled):
            await one.until_caught_up()
        load, memory = Load(agent, random.Random(1)), Memory(pid)
        watching = asyncio.create_task(memory.watch())
        loading = asyncio.create_task(load.run())
        loading.add_done_callback(lambda _: load.committed.set())
        try:
            # All followers read: the memory that the same load takes without slow readers.
            began = time.monotonic()
            await _loaded(load, loading, STALL_SECONDS / 2, STALL_BYTES // 2)
            stalled_at = time.monotonic()
            for one in stalled:
                one.reads_on.clear()
            commits, changes = load.commits, [one.changes for one in stalled]
            read_before, entries_before = keeps_up.changes, load.entries
            before_bytes = load.committed_bytes
            await _loaded(load, loading, STALL_SECONDS, STALL_BYTES)
            read_on_at = time.monotonic()
        finally:
            # Not by cancelling the load: that would end the agent's stream.
            load.stops = True
            await loading
        await agent.acked()
        revision = (await client.get_task(TASK)).log.revision
        assert keeps_up.changes > read_before
        for one in stalled:
            one.reads_on.set()
        for one in (keeps_up, *stalled):
            await one.reached(revision)
        converged_at = time.monotonic()
        watching.cancel()
        await asyncio.wait({watching})

        log = await client.get(TASK, source=LogSource.SNAPSHOT)
        stored = {one.id: one for one in await log.all()}
        for one in (keeps_up, *stalled):
            assert one.of_epoch(1) == stored

    commits = load.commits - commits
    reading_bytes = memory.most_bytes(began, stalled_at)
    stalled_bytes = memory.most_bytes(stalled_at, read_on_at)
    taken = [one.changes - known for one, known in zip(stalled, changes, strict=True)]
    _log.info(
        "%d followers stalled for %.1f s: %d commits, %.0f MB, %d new entries; server RSS while all"
        " read %.1f MB, while they stalled %.1f MB, while they caught up %.1f MB; caught up in"
        " %.2f s with %s changes; the one that kept up read %d",
        *(STALLED, read_on_at - stalled_at, commits, (load.committed_bytes - before_bytes) / 1e6),
        *(load.entries - entries_before, reading_bytes / 1e6, stalled_bytes / 1e6),
        *(memory.most_bytes(read_on_at) / 1e6, converged_at - read_on_at, taken),
        keeps_up.changes - read_before,
    )
    quarter = (read_on_at - stalled_at) / 4
    _log.info(
        "most RSS in each quarter of the stall: %s MB",
        [
            round(memory.most_bytes(since, since + quarter) / 1e6, 1)
            for since in (stalled_at + part * quarter for part in range(4))
        ],
    )
    assert stalled_bytes - reading_bytes < GROWTH_MAY_BE_BYTES
    for count in taken:
        assert count < commits / 2


async def _loaded(
    load: Load, loading: asyncio.Task[None], seconds: float, at_least_bytes: int
) -> None:
    """Let the load run for this long, and until it has committed this much."""
    until, enough = time.monotonic() + seconds, load.committed_bytes + at_least_bytes
    async with asyncio.timeout(seconds + 60):
        while time.monotonic() < until or load.committed_bytes < enough:
            load.committed.clear()
            await load.committed.wait()
            assert not loading.done(), loading.exception()
