"""One server process of the simulation: real parts, as bootstrap/service.py joins them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from tasklogs.log.truncation import MAX_CONTENT_BYTES
from tasklogs_server.bus.shared import SharedBus
from tasklogs_server.domain.synced import Synced
from tasklogs_server.ingest.elsewhere import Elsewhere, SyncsForOthers
from tasklogs_server.ingest.group_commit import GroupCommit
from tasklogs_server.ingest.log_limits import LogLimiter
from tasklogs_server.ingest.messages import Hello, Limits
from tasklogs_server.ingest.session import Session, SessionResources
from tasklogs_server.ingest.sessions import Sessions
from tasklogs_server.ingest.syncs import Syncs
from tasklogs_server.ingest.write_behind import WriteBehind
from tasklogs_server.limits.handshake_queue import HandshakeQueue
from tasklogs_server.limits.ingest_budget import IngestBudget
from tasklogs_server.limits.tail_budget import TailBudget
from tasklogs_server.reads.follower import Follows
from tasklogs_server.store.circuit_breaker import CircuitBreaker
from tasklogs_server.store.evictions import LogLimits
from tasklogs_server.store.generations import Generations
from tests.sim.network import ModelTransport, Network
from tests.sim.primary import GENERATION, Primary
from tests.sim.processor import Processor
from tests.sim.stores import ModelStore

HELLO = Hello("sim", "scripted", None)

# The defaults of the settings.
_HANDSHAKES = 64
_HANDSHAKE_WAIT = timedelta(seconds=5)
_AGENT_WAIT = timedelta(seconds=3)
_SYNC_TIMEOUT = timedelta(seconds=10)
_LEASE = timedelta(seconds=30)
_TICK_SECONDS = 5.0
_LIMITS = Limits(4 << 20, 2 << 20, MAX_CONTENT_BYTES)
_LOG_LIMITS = LogLimits(rows=1_000_000, bytes=1 << 30, min_retention=timedelta(days=7))
_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


class Server:
    """A process. `start` runs it, `kill` ends it as SIGKILL does."""

    def __init__(self, process_id: UUID, network: Network, primary: Primary) -> None:
        self.id = process_id
        self.processor = Processor()
        self.store = ModelStore(process_id, primary, self.processor)
        self.transport = ModelTransport(network, self.processor)
        self.is_alive = True
        self._network = network
        self._running: list[asyncio.Task[None]] = []
        self.bus = SharedBus(process_id, self.transport)
        generations = Generations()
        generations.observe(GENERATION)
        store: Any = self.store
        self.resources = self._resources(store, generations)
        tails = TailBudget(256 << 20)
        self.sessions = Sessions(
            self.resources,
            store=store,
            tasks=store,
            bus=self.bus,
            handshakes=HandshakeQueue(_HANDSHAKES, _HANDSHAKE_WAIT),
            tails=tails,
            generations=generations,
            circuit_breaker=CircuitBreaker(),
        )
        self.syncs = Syncs(
            self.sessions,
            agent_wait=_AGENT_WAIT,
            sync_timeout=_SYNC_TIMEOUT,
            elsewhere=Elsewhere(
                self.bus,
                self.sessions,
                process_of=store.process_of,
                sync_timeout=_SYNC_TIMEOUT,
            ),
            monotonic=asyncio.get_running_loop().time,
        )
        self.syncs_for_others = SyncsForOthers(
            self.bus, self.sessions, sync=self.syncs.run, recent=self.syncs.recent_of
        )
        self.follows = Follows(
            store, self.bus, sync=self.syncs.request, lease=_LEASE, generations=generations
        )

    def _resources(self, store: Any, generations: Generations) -> SessionResources:
        loop = asyncio.get_running_loop()
        budget = IngestBudget(256 << 20)
        return SessionResources(
            limits=_LIMITS,
            group_commit=GroupCommit(store, self.bus, budget=budget),
            budget=budget,
            log_limiter=LogLimiter(store, _LOG_LIMITS),
            epoch_limiter=_NoEpochLimit(),  # type: ignore[arg-type]
            write_behind=WriteBehind(store, generations),
            load_tail=store.tail_content,
            clock=_clock(loop),
            monotonic=loop.time,
        )

    def start(self) -> None:
        """Run all that the composition root runs."""
        works = (
            self.bus.run(),
            self.resources.group_commit.run(),
            self.sessions.run_audit(),
            self.syncs_for_others.run(),
            self._tick(),
        )
        self._running = [asyncio.create_task(one) for one in works]

    async def kill(self) -> None:
        """End it without a word. Its peers notice by its silence."""
        self.is_alive = False
        self._network.leave(self.id)  # so that the bus cannot say that it leaves
        for one in self._running:
            one.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def stop(self) -> None:
        """End it in order: it tells the others."""
        self.is_alive = False
        for one in self._running:
            one.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def failure(self) -> BaseException | None:
        """Return why a part of it ended, which none may do."""
        for one in self._running:
            if one.done() and not one.cancelled():
                return one.exception() or AssertionError("a part of the server returned")
        return None

    def hold(self, task_id: UUID) -> Session:
        """Open a session at once, without a handshake: for what was there before the run."""
        serial = self.sessions._losses.begin()
        opening = self.store.raise_fence(task_id, serial)
        session = Session(task_id, HELLO, opening, serial=serial, resources=self.resources)
        self.sessions._replace(session)
        return session

    async def live_read(self, task_id: UUID) -> Synced:
        """Read as `reads/reader.py` does: the state, a sync, and the state again."""
        known = await self.store.state(task_id)
        request = self.syncs.request(task_id, max_staleness=None, time_left=None)
        while True:
            synced = await request.done(known)
            if synced.is_held_by(known):
                return synced
            known = await self.store.state(task_id)
            if synced.is_held_by(known):
                return synced
            await request.refute(synced)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            await self.sessions.tick()


class _NoEpochLimit:
    async def check(self, _: UUID) -> None:
        return


def _clock(loop: asyncio.AbstractEventLoop) -> Callable[[], datetime]:
    return lambda: _BEGAN + timedelta(seconds=loop.time())
