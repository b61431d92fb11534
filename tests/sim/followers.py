"""Followers of the service: each reads the messages of the real follow, and checks them."""

from __future__ import annotations

import asyncio
import random
from uuid import UUID

from tasklogs.connection import backoff
from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs_server.domain.errors import TaskLogsError
from tasklogs_server.domain.names import TaskId
from tasklogs_server.domain.read_plan import Source
from tasklogs_server.reads.follow_query import FollowQuery
from tasklogs_server.reads.tokens import Cursor
from tests.sim.agents import Agents
from tests.sim.fleet import Fleet
from tests.sim.measures import Measures
from tests.sim.primary import Primary
from tests.sim.server import Server

# As the client library.
_BACKOFF_FIRST_SECONDS = 0.1
_BACKOFF_CAP_SECONDS = 5.0


class Follower:
    """One follower, which resumes with its last cursor on another process."""

    def __init__(self, followers: Followers, task_id: UUID) -> None:
        self.task_id = task_id
        self.next_id = 0
        """That of the next entry, if nothing is lost or comes twice."""
        self.server: Server | None = None
        self.lost_at: float | None = None
        self._all = followers
        self._cursor: Cursor | None = None
        self._stream: asyncio.Task[None] | None = None

    def cut(self, noticed_after: float) -> None:
        """Break the stream. The follower notices after this time."""
        self.lost_at = asyncio.get_running_loop().time()
        self._noticed_after = noticed_after
        if self._stream is not None:
            self._stream.cancel()

    async def run(self) -> None:
        failures = 0
        self._noticed_after = 0.0
        while True:
            server = self.server = self._all.fleet.any()
            self._stream = asyncio.create_task(self._follow(server))
            try:
                await asyncio.wait([self._stream])
            except asyncio.CancelledError:
                self._stream.cancel()
                await asyncio.wait([self._stream])
                raise
            if not self._stream.cancelled():
                error = self._stream.exception()
                if not isinstance(error, TaskLogsError):
                    self._all.failures.append(error or AssertionError("a follow just ended"))
                    return
                self.lost_at = self.lost_at or asyncio.get_running_loop().time()
            failures += 1
            await asyncio.sleep(self._noticed_after)
            self._noticed_after = 0.0
            await asyncio.sleep(
                backoff.growing_seconds(
                    failures,
                    first=_BACKOFF_FIRST_SECONDS,
                    cap=_BACKOFF_CAP_SECONDS,
                    rng=self._all.rng,
                )
            )

    async def _follow(self, server: Server) -> None:
        costs = self._all.primary.costs
        await asyncio.sleep(costs.hop)
        await server.processor.work(costs.handshake)
        query = FollowQuery(
            ref=TaskId(self.task_id, None),
            sees_only=None,
            source=Source.DEFAULT,
            tail=None,
            cursor=self._cursor,
            deltas=True,
        )
        async with server.follows.following(query) as messages:
            async for message in messages:
                await server.processor.work(costs.message)
                self._read(server, pb.FollowTaskLogsResponse.FromString(message))

    def _read(self, server: Server, message: pb.FollowTaskLogsResponse) -> None:
        now = asyncio.get_running_loop().time()
        self._cursor = Cursor.decode(message.cursor)
        measures = self._all.measures
        measures.counts["follow messages"] += 1
        if self.lost_at is not None:
            measures.follower_back.add(now - self.lost_at)
            self.lost_at = None
        for entry in message.entries.logs:
            if entry.id != self.next_id:
                self._all.wrong.append((self.task_id, self.next_id, entry.id))
            self.next_id = entry.id + 1
        committed_at = self._all.primary.rows[self.task_id].committed_at
        assert committed_at is not None
        at = committed_at.get(self._cursor.revision)
        if at is not None and message.entries.logs:
            is_here = self._all.agents.all[self.task_id].server is server
            (measures.lag_here if is_here else measures.lag).add(now - at)


class Followers:
    """All followers."""

    def __init__(
        self,
        agents: Agents,
        fleet: Fleet,
        primary: Primary,
        measures: Measures,
        rng: random.Random,
    ) -> None:
        self.agents = agents
        self.fleet = fleet
        self.primary = primary
        self.measures = measures
        self.rng = rng
        self.all: list[Follower] = []
        self.wrong: list[tuple[UUID, int, int]] = []
        """Entries that came out of turn: the task, the id that was next, and the one that came."""
        self.failures: list[BaseException] = []
        self._running: list[asyncio.Task[None]] = []

    def add(self, task_id: UUID) -> None:
        """Follow a task from its beginning."""
        row = self.primary.rows[task_id]
        if row.kept is None:
            row.kept, row.committed_at = [], {}
        follower = Follower(self, task_id)
        self.all.append(follower)
        self._running.append(asyncio.create_task(follower.run()))

    @property
    def away(self) -> int:
        """How many have lost their follow and not seen the next one."""
        return sum(one.lost_at is not None for one in self.all)

    def lose(self, server: Server, *, noticed_after: float) -> None:
        """Break all follows of a server."""
        for one in self.all:
            if one.server is server:
                one.cut(noticed_after)

    @property
    def behind(self) -> int:
        """How many have not seen all that their tasks' agents produced."""
        agents = self.agents.all
        return sum(one.next_id < agents[one.task_id].produced for one in self.all)

    async def stop(self) -> None:
        for one in self._running:
            one.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
