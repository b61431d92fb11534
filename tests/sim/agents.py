"""Modelled agents: each sends entries, answers syncs, and connects again when its session ends."""

from __future__ import annotations

import asyncio
import random
from contextlib import AbstractAsyncContextManager
from uuid import UUID

from tasklogs.connection import backoff
from tasklogs.log.append import Append
from tasklogs.log.entry import Entry, EntryType, Time
from tasklogs_server.domain.errors import TaskLogsError
from tasklogs_server.ingest.outbox import Outbox
from tasklogs_server.ingest.session import Session
from tests.sim.costs import Costs
from tests.sim.fleet import Fleet
from tests.sim.measures import Measures
from tests.sim.server import HELLO, Server

# 500 bytes, as in the benchmarks.
_CONTENT = b"x" * 500
# As agent/settings.py.
_BACKOFF_FIRST_SECONDS = 0.25
_BACKOFF_CAP_SECONDS = 5.0


class Agent:
    """The agent of one task. `produced` counts what its task app has shown."""

    __slots__ = (
        *("acked", "lost_at", "produced", "sending", "sent", "sent_at"),
        *("server", "session", "stream", "task_id"),
    )

    def __init__(self, task_id: UUID) -> None:
        self.task_id = task_id
        self.produced = 0
        self.acked = 0
        """How many entries the server has acknowledged."""
        self.sent = 0
        """How many were sent in this session, or are stored."""
        self.sending: Session | None = None
        """The session whose next append is on its way."""
        self.session: Session | None = None
        self.server: Server | None = None
        self.stream: AbstractAsyncContextManager[Session] | None = None
        self.sent_at: dict[int, tuple[int, float]] | None = None
        """By sequence: how many entries it completes, and when it was sent."""
        self.lost_at: float | None = None


class _Stream(Outbox):
    """The server's side of a stream. It calls the agent instead of waiting for a writer."""

    def __init__(self, agents: Agents, agent: Agent) -> None:
        super().__init__()
        self._agents = agents
        self._agent = agent

    def ack(self, sequence: int) -> None:
        self._agents.acked(self._agent, sequence)

    def sync(self, sync_id: int, traceparent: str = "") -> None:
        self._agents.asked(self._agent, sync_id)

    def forget_sync(self, sync_id: int) -> None:
        pass

    def report_state(self) -> None:
        pass

    def close(self, error: Exception | None = None) -> None:
        self._agents.ended(self._agent, self)


class Agents:
    """All agents."""

    def __init__(self, fleet: Fleet, costs: Costs, measures: Measures, rng: random.Random) -> None:
        self.all: dict[UUID, Agent] = {}
        self._fleet = fleet
        self._costs = costs
        self._measures = measures
        self._rng = rng
        self._working: set[asyncio.Task[None]] = set()
        self.away = 0
        """How many have no session."""

    def place(self, task_id: UUID, server: Server) -> None:
        """Add an agent that is connected already."""
        agent = self.all[task_id] = Agent(task_id)
        self._joined(agent, server, server.hold(task_id))

    def produce(self, agent: Agent) -> None:
        """Let the task app show one more entry."""
        agent.produced += 1
        if agent.session is not None and agent.sending is not agent.session:
            self._work(self._send(agent, agent.session))

    def lose(self, server: Server, *, noticed_after: float) -> None:
        """Break all streams of a server. The agents notice after this time."""
        for agent in self.all.values():
            if agent.server is server:
                self._lost(agent, noticed_after)

    # What a stream brings

    def acked(self, agent: Agent, sequence: int) -> None:
        server = agent.server
        if server is None or not server.is_alive:
            return
        at = server.processor.reserve(self._costs.message) + self._costs.hop
        loop = asyncio.get_running_loop()
        sent_at, session = agent.sent_at, agent.session

        def arrived() -> None:
            if agent.session is not session or sent_at is None or not server.is_alive:
                return
            for one in [one for one in sent_at if one <= sequence]:
                entries, at = sent_at.pop(one)
                agent.acked = max(agent.acked, entries)
                self._measures.ack.add(loop.time() - at)

        loop.call_at(at, arrived)

    def asked(self, agent: Agent, sync_id: int) -> None:
        server, session = agent.server, agent.session
        if server is None or session is None:
            return
        loop = asyncio.get_running_loop()
        # There and back, and the task app answers in a millisecond.
        back_at = server.processor.reserve(self._costs.message) + 2 * self._costs.hop + 0.001

        def answered() -> None:
            if session.is_open and server.is_alive:
                done_at = server.processor.reserve(self._costs.message)
                loop.call_at(done_at, session.sync_done, sync_id)

        loop.call_at(back_at, answered)

    def ended(self, agent: Agent, stream: _Stream) -> None:
        session = agent.session
        if session is not None and session.outbox is stream:
            self._lost(agent, self._costs.hop)

    # An agent's life

    def _joined(self, agent: Agent, server: Server, session: Session) -> None:
        session.outbox = _Stream(self, agent)
        agent.session, agent.server = session, server
        agent.sent_at = {}

    def _lost(self, agent: Agent, noticed_after: float) -> None:
        agent.lost_at = asyncio.get_running_loop().time()
        stream, server = agent.stream, agent.server
        agent.session = agent.server = agent.stream = None
        self.away += 1
        if stream is not None and server is not None and server.is_alive:
            self._work(_close(stream))
        self._work(self._connect(agent, noticed_after))

    async def _connect(self, agent: Agent, after: float) -> None:
        await asyncio.sleep(after)
        failures = 0
        while True:
            failures += 1
            await asyncio.sleep(
                backoff.growing_seconds(
                    failures,
                    first=_BACKOFF_FIRST_SECONDS,
                    cap=_BACKOFF_CAP_SECONDS,
                    rng=self._rng,
                )
            )
            server = self._fleet.any()
            stream = server.sessions.connect(agent.task_id, HELLO)
            try:
                session = await stream.__aenter__()
            except TaskLogsError:
                self._measures.counts["connects refused"] += 1
                continue
            if not session.is_open or not server.is_alive:
                await stream.__aexit__(None, None, None)
                continue
            break
        self._joined(agent, server, session)
        agent.stream = stream
        self.away -= 1
        now = asyncio.get_running_loop().time()
        if agent.lost_at is not None:
            self._measures.back.add(now - agent.lost_at)
        self._measures.counts["sessions moved"] += 1
        # What Welcome says is stored needs no further send.
        stored = session.welcome.position.entries
        assert stored >= agent.acked, "an acknowledged entry is gone"
        agent.acked = agent.sent = stored
        self._work(self._send(agent, session))

    async def _send(self, agent: Agent, session: Session) -> None:
        """Send what was shown and not sent, an append at a time, until nothing is left."""
        server, sent_at = agent.server, agent.sent_at
        if server is None or sent_at is None or agent.sending is session:
            return
        agent.sending = session
        loop = asyncio.get_running_loop()
        while agent.session is session and agent.sent < agent.produced:
            first, agent.sent = agent.sent, agent.produced
            at = loop.time()
            await asyncio.sleep(self._costs.hop)
            await server.processor.work(self._costs.append)
            if agent.session is not session:
                break
            append = Append(
                sequence=session._window.received_sequence + 1,
                open_epoch=first == 0,
                entries=[
                    Entry(number, EntryType.OUTPUT, Time(int(at), 0), _CONTENT)
                    for number in range(first, agent.sent)
                ],
            )
            sent_at[append.sequence] = (agent.sent, at)
            try:
                await session.append(append)
            except TaskLogsError:
                self._measures.counts["appends refused"] += 1
                break
        if agent.sending is session:
            agent.sending = None

    def _work(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    async def stop(self) -> None:
        """End what is under way."""
        working = list(self._working)
        for one in working:
            one.cancel()
        await asyncio.gather(*working, return_exceptions=True)


async def _close(stream: AbstractAsyncContextManager[Session]) -> None:
    await stream.__aexit__(None, None, None)
