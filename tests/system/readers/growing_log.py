"""A log that a publisher writes on a real server, and what a reader of it must see.

Every content follows from its entry's id. So each reader can tell by itself whether an event was
lost or came twice.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from tasklogs import EntriesChanged, Entry, FollowEvent, Publisher, TaskLogsClient
from tests.support.fakes.faulty_proxy import FaultyProxy
from tests.support.fixtures.conditions import until
from tests.support.fixtures.server import Server, serving

TASK = "local/growing"
_LINES = 12


def content_of(entry_id: int) -> str:
    """Return what the entry holds in the end; until then it holds the beginning of it."""
    rng = random.Random(entry_id)
    lines = (f"{entry_id}.{n} {'x' * rng.randrange(40)}\n" for n in range(rng.randrange(_LINES)))
    return f"entry {entry_id}\n" + "".join(lines)


@dataclass
class Seen:
    """What one reader was given, over all its follows. Raises AssertionError where it is wrong."""

    last_id: int = -1
    last_content: str = ""
    revision: int = 0
    cursor: str | None = None
    events: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    """How often the reader did what."""

    def take(self, event: FollowEvent) -> None:
        """Check the next event. An entry must be complete before its successor comes."""
        self.events += 1
        self.cursor = event.cursor
        if not isinstance(event, EntriesChanged):
            return
        for change in event.changes:
            entry = change.entry
            assert entry.revision > self.revision, f"revision {entry.revision} came twice"
            self.revision = entry.revision
            if entry.id != self.last_id:
                assert entry.id == self.last_id + 1, f"{entry.id} came after {self.last_id}"
                if self.last_id >= 0:
                    assert self.last_content == content_of(self.last_id), f"{self.last_id} lacks"
            assert content_of(entry.id).startswith(entry.content)
            self.last_id, self.last_content = entry.id, entry.content

    def did(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def has_all(self, entries: int) -> bool:
        """Whether it has seen all of a log with so many entries."""
        return self.last_id == entries - 1 and self.last_content == content_of(self.last_id)


class GrowingLog:
    """A server with one growing log, and a network to it that breaks."""

    def __init__(self, server: Server, network: FaultyProxy, seed: int) -> None:
        self.server = server
        self.network = network
        self.entries = 0
        """How many entries are complete."""
        self._rng = random.Random(seed)
        self._token = ""

    @property
    def address(self) -> str:
        """Where readers connect to: the network that breaks."""
        return self.network.address

    async def create(self) -> None:
        async with TaskLogsClient(self.server.address) as client:
            self._token = (await client.create_task("growing", standalone=True)).agent_token

    async def delete(self) -> None:
        async with TaskLogsClient(self.server.address) as client:
            await client.delete_task(TASK)

    async def grow(self, until_set: asyncio.Event) -> None:
        """Write entry after entry, some at once and some line by line."""
        async with Publisher(self.server.address, token=self._token) as log:
            while not until_set.is_set():
                content = content_of(self.entries)
                if self._rng.random() < 0.3:
                    await log.append(Entry.output(content))
                else:
                    await self._by_line(log, content)
                self.entries += 1
                if self._rng.random() < 0.5:
                    await asyncio.sleep(self._rng.random() * 0.02)

    async def _by_line(self, log: Publisher, content: str) -> None:
        first, *rest = content.splitlines(keepends=True)
        entry = await log.begin(Entry.output(first))
        for line in rest:
            await entry.extend(line)
            if self._rng.random() < 0.3:
                await asyncio.sleep(self._rng.random() * 0.01)

    async def break_streams(self, until_set: asyncio.Event) -> None:
        """Reset the readers' connections now and then, most often within a message."""
        while not until_set.is_set():
            await asyncio.sleep(self._rng.random() * 0.5)
            if self._rng.random() < 0.5:
                self.network.cut()
            else:
                self.network.cut_after(self._rng.randrange(1, 5_000))

    async def open_follows(self) -> int:
        """Return how many follows are open at the server."""
        async with httpx.AsyncClient() as http:
            answer = await http.get(f"http://{self.server.metrics_address}/metrics")
        lines = answer.text.splitlines()
        return next(int(float(one.split()[1])) for one in lines if one.startswith(_FOLLOWERS))

    async def nobody_follows(self) -> None:
        """Wait until no follow is open at the server."""

        async def is_quiet() -> bool:
            return await self.open_follows() == 0

        await until(is_quiet)


_FOLLOWERS = "tasklogs_followers "


@asynccontextmanager
async def growing_log(dsn: str, seed: int) -> AsyncIterator[GrowingLog]:
    """Serve an empty log on a migrated database. `grow` lets it grow."""
    async with (
        serving(dsn, metrics_listen="127.0.0.1:0") as server,
        FaultyProxy(int(server.address.rpartition(":")[2])) as network,
    ):
        log = GrowingLog(server, network, seed)
        await log.create()
        yield log
