"""Sessions, syncs and uploads over a real store, as the composition root builds them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self
from uuid import UUID

from tasklogs.log.append import Append, TailChange
from tasklogs.log.delta import Delta
from tasklogs.log.entry import Entry, EntryType, Time
from tasklogs.log.truncation import MAX_CONTENT_BYTES
from tasklogs_server.bus.local import LocalBus
from tasklogs_server.domain.synced import StoredState, Synced
from tasklogs_server.ingest.group_commit import GroupCommit
from tasklogs_server.ingest.large_commits import LargeCommits
from tasklogs_server.ingest.log_limits import EpochLimiter, LogLimiter
from tasklogs_server.ingest.messages import (
    Ack,
    Hello,
    Limits,
    ServerEvent,
    Sync,
)
from tasklogs_server.ingest.session import Session, SessionResources
from tasklogs_server.ingest.sessions import Sessions
from tasklogs_server.ingest.syncs import Syncs
from tasklogs_server.ingest.upload import Uploads
from tasklogs_server.ingest.write_behind import WriteBehind
from tasklogs_server.limits.handshake_queue import HandshakeQueue
from tasklogs_server.limits.ingest_budget import IngestBudget
from tasklogs_server.limits.tail_budget import TailBudget
from tasklogs_server.limits.upload_places import UploadPlaces
from tasklogs_server.limits.upload_queue import UploadQueue
from tasklogs_server.store import Store
from tasklogs_server.store.evictions import LogLimits
from tests.support.fixtures.conditions import DEADLINE_SECONDS

GENEROUS = LogLimits(rows=1_000_000, bytes=1 << 30, min_retention=timedelta(days=7))
NOTHING_KNOWN = StoredState(fence=0, revision=0, start_build=None)
HELLO = Hello("test", "scripted", None)


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self._seconds = 0.0

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> datetime:
        """Let time pass; return the new time."""
        self._seconds += seconds
        return self.set_(self.now + timedelta(seconds=seconds))

    def set_(self, moment: datetime) -> datetime:
        """Let the wall clock jump: no time passes."""
        self.now = moment
        return moment

    def monotonic(self) -> float:
        """How much time has passed, in seconds."""
        return self._seconds


@dataclass
class Desk:
    """The ingest package over a real store."""

    store: Store
    clock: Clock
    budget: IngestBudget
    group_commit: GroupCommit
    write_behind: WriteBehind
    sessions: Sessions
    syncs: Syncs
    uploads: Uploads
    tails: TailBudget

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        store: Store,
        *,
        window_bytes: int = 4 << 20,
        ingest_bytes: int = 256 << 20,
        tail_bytes: int = 256 << 20,
        handshakes: int = 64,
        max_wait: timedelta = timedelta(seconds=5),
        agent_wait: float = 3.0,
        sync_timeout: float = 10.0,
        log_limits: LogLimits = GENEROUS,
        epochs_per_hour: int = 60,
    ) -> AsyncIterator[Self]:
        """Build the whole package and run the group commit."""
        clock, budget, bus = Clock(), IngestBudget(ingest_bytes), LocalBus()
        group_commit = GroupCommit(store.writes, bus, budget=budget)
        write_behind = WriteBehind(store.writes, store.generations)
        tails = TailBudget(tail_bytes)
        log_limiter = LogLimiter(store.evictions, log_limits)
        resources = SessionResources(
            limits=Limits(window_bytes, 2 << 20, MAX_CONTENT_BYTES),
            group_commit=group_commit,
            budget=budget,
            log_limiter=log_limiter,
            epoch_limiter=EpochLimiter(store.sessions, epochs_per_hour),
            write_behind=write_behind,
            load_tail=store.sessions.tail_content,
            clock=clock,
            monotonic=clock.monotonic,
        )
        sessions = Sessions(
            resources,
            store=store.sessions,
            tasks=store.tasks,
            bus=bus,
            handshakes=HandshakeQueue(handshakes, max_wait),
            tails=tails,
            generations=store.generations,
        )
        syncs = Syncs(
            sessions,
            agent_wait=timedelta(seconds=agent_wait),
            sync_timeout=timedelta(seconds=sync_timeout),
            monotonic=clock.monotonic,
        )
        uploads = Uploads(
            resources,
            store=store.sessions,
            sessions=sessions,
            large_commits=LargeCommits(store.writes, bus),
            queue=UploadQueue(
                at_work=2, queued_bytes=64 * 1024 * 1024, max_wait=timedelta(seconds=20)
            ),
            places=UploadPlaces(4),
        )
        running = asyncio.create_task(group_commit.run())
        try:
            yield cls(
                store, clock, budget, group_commit, write_behind, sessions, syncs, uploads, tails
            )
            assert not running.done(), "the group commit runs for as long as there are writers"
        finally:
            running.cancel()
            await asyncio.wait([running])

    async def sync(
        self,
        task_id: UUID,
        *,
        max_staleness: timedelta | None = None,
        time_left: timedelta | None = None,
        known: StoredState = NOTHING_KNOWN,
    ) -> Synced:
        """Ask for a sync, as a reader does, and return what it rests on."""
        request = self.syncs.request(task_id, max_staleness=max_staleness, time_left=time_left)
        return await request.done(known)

    @asynccontextmanager
    async def agent(self, task_id: UUID, hello: Hello = HELLO) -> AsyncIterator[DeskAgent]:
        """Connect an agent; its stream ends with the block."""
        async with self.sessions.connect(task_id, hello) as session:
            agent = DeskAgent(self, session)
            listening = asyncio.create_task(agent.listen())
            try:
                yield agent
            finally:
                listening.cancel()
                await asyncio.wait([listening])


class DeskAgent:
    """An agent without gRPC, which does what a test calls."""

    def __init__(self, desk: Desk, session: Session) -> None:
        self.session = session
        self.heard: list[ServerEvent] = []
        self.error: Exception | None = None
        self.has_ended = asyncio.Event()
        self.answers_syncs = False
        self.sent = 0
        self._desk = desk
        self._changed = asyncio.Condition()

    @property
    def acked(self) -> int:
        """The last sequence number that was acknowledged."""
        return max((one.sequence for one in self.heard if isinstance(one, Ack)), default=0)

    @property
    def syncs(self) -> Sequence[int]:
        """The syncs that were asked for."""
        return [one.id for one in self.heard if isinstance(one, Sync)]

    async def append(
        self,
        entries: Sequence[Entry] = (),
        *,
        open_epoch: bool = False,
        withdraw_tail: bool = False,
        tail: TailChange | None = None,
    ) -> None:
        """Append, as the service does."""
        self.sent += 1
        await self.session.append(Append(self.sent, open_epoch, withdraw_tail, tail, entries))

    async def all_acked(self) -> None:
        """Wait until everything that was sent is acknowledged."""
        await self.until(lambda: self.acked == self.sent)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until `holds` is true for what was received."""
        async with asyncio.timeout(DEADLINE_SECONDS), self._changed:
            await self._changed.wait_for(holds)

    async def listen(self) -> None:
        """Receive the server's messages, and answer syncs if `answers_syncs`."""
        try:
            while events := await self.session.outbox.next_events():
                for event in events:
                    self.heard.append(event)
                    if isinstance(event, Sync) and self.answers_syncs:
                        self.session.sync_done(event.id)
                async with self._changed:
                    self._changed.notify_all()
        except Exception as error:
            self.error = error
        self.has_ended.set()


def entry(id_: int, content: str = "x", *, seconds: int | None = None) -> Entry:
    """Make an entry. Its time is its id if none is given."""
    time = Time(id_ if seconds is None else seconds, 0)
    return Entry(id_, EntryType.OUTPUT, time, content.encode())


def grown(id_: int, keep: int, text: str) -> TailChange:
    """Make a change of the tail."""
    return TailChange(id_, Time(1000, 0), Delta.keeping(keep, text.encode()))
