"""The sessions of this process: who holds which task, how they begin and how they end."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from tasklogs_server.bus.local import LocalBus
from tasklogs_server.bus.notes import Moved
from tasklogs_server.concurrency.retry_when_busy import once_it_has_time
from tasklogs_server.concurrency.singleflight import Shared
from tasklogs_server.domain.errors import (
    AgentUnreachable,
    LimitExceeded,
    ServerDraining,
    SessionSuperseded,
    StaleReport,
    StoreUnavailable,
    TaskLogsError,
)
from tasklogs_server.domain.limits import Limit
from tasklogs_server.domain.reports import connect_standalone, observe_agent, pause_standalone
from tasklogs_server.domain.status import BuildTransition, Facts
from tasklogs_server.ingest.group_commit import Committer
from tasklogs_server.ingest.log_limits import Room
from tasklogs_server.ingest.messages import AgentState, GoodbyeReason, Hello, Limits
from tasklogs_server.ingest.session import Session
from tasklogs_server.limits.handshake_queue import HandshakeQueue
from tasklogs_server.limits.ingest_budget import IngestBudget
from tasklogs_server.store.circuit_breaker import Presence
from tasklogs_server.store.log_writes import LogWrites
from tasklogs_server.store.sessions import SessionStore
from tasklogs_server.store.tasks import TaskStore
from tasklogs_server.telemetry.observer import Observer

_RETRY_AFTER = timedelta(seconds=1)
_TAIL_IDLE = timedelta(seconds=30)
# Whoever holds one task's row in the store must not keep the others' agents from their turn.
_HANDSHAKE_SECONDS = 10.0

_log = structlog.get_logger(__name__)


class Sessions:
    """At most one open session per task. Everything here is this process's; the fence decides."""

    def __init__(
        self,
        *,
        store: SessionStore,
        tasks: TaskStore,
        writes: LogWrites,
        committer: Committer,
        bus: LocalBus,
        budget: IngestBudget,
        room: Room,
        limits: Limits,
        tail_bytes: int,
        handshakes: HandshakeQueue,
        epochs_per_hour: int,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
        presence: Presence | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._observer = observer or Observer()
        self._store = store
        self._tasks = tasks
        self._writes = writes
        self._committer = committer
        self._bus = bus
        self._budget = budget
        self._room = room
        self._limits = limits
        self._tail_bytes = tail_bytes
        self._handshakes = handshakes
        self._epochs_per_hour = epochs_per_hour
        self._clock = clock
        self._monotonic = monotonic
        self._presence = presence or Presence()
        self._presence.on_loss(self._store_lost)
        self._open: dict[UUID, Session] = {}
        self._awaited: dict[UUID, set[asyncio.Future[Session]]] = defaultdict(set)
        self._confirmed: dict[UUID, _Confirmed] = {}
        self._lost: set[tuple[UUID, int]] = set()
        """Tasks and fences whose loss is not noted in the store yet.

        A task may have two: of a session, and of a handshake that perhaps came after it.
        """
        self._undecided: dict[UUID, int] = {}
        """Fences of which nobody knows whether they were committed."""
        self._noting: Shared[None] = Shared()
        self._draining = False

    @property
    def open_count(self) -> int:
        """How many sessions are open."""
        return len(self._open)

    @property
    def is_draining(self) -> bool:
        """Whether no new session is taken any more."""
        return self._draining

    @asynccontextmanager
    async def connect(self, task_id: UUID, hello: Hello) -> AsyncIterator[Session]:
        """Take the task's fence for one stream; the session ends with the block.

        Raises StaleReport, LimitExceeded (too many connect at once), ServerDraining, TaskNotFound.
        """
        session = await self._begin(task_id, hello)
        try:
            yield session
        finally:
            await self._finish(session)

    def find(self, task_id: UUID) -> Session | None:
        """Return the task's open session, if this process has it."""
        session = self._open.get(task_id)
        return session if session is not None and session.is_open else None

    async def wait_for(self, task_id: UUID, timeout: timedelta) -> Session:
        """Return the task's session, or wait for one.

        Raises AgentUnreachable, and where none can connect StoreUnavailable or ServerDraining.
        """
        session = self.find(task_id)
        if session is not None:
            return session
        self._presence.check()
        if self._draining:
            raise ServerDraining(_RETRY_AFTER)
        arrival: asyncio.Future[Session] = asyncio.get_running_loop().create_future()
        waiting = self._awaited[task_id]
        waiting.add(arrival)
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                return await arrival
        except TimeoutError:
            raise AgentUnreachable(timeout, _RETRY_AFTER) from None
        finally:
            waiting.discard(arrival)
            if not waiting:
                self._awaited.pop(task_id, None)

    async def report(self, session: Session, state: AgentState) -> None:
        """Take the agent's own report, where it concerns the latest build."""

        def change(facts: Facts) -> Facts:
            build = session.hello.build_number
            return observe_agent(facts, build, state.lifecycle, state.health) or facts

        await once_it_has_time(lambda: self._tasks.change_facts(session.task_id, change))
        self._bus.publish(Moved(session.task_id))

    async def limit_epochs(self, task_id: UUID) -> None:
        """Raise LimitExceeded where the task opened too many epochs in the last hour."""
        if await self._store.epochs_in_the_last_hour(task_id) >= self._epochs_per_hour:
            raise LimitExceeded(
                Limit.EPOCHS_PER_HOUR,
                "task",
                f"{self._epochs_per_hour} new epochs in an hour",
                timedelta(minutes=5),
            )

    async def goodbye(self, session: Session, reason: GoodbyeReason) -> None:
        """End a session in good order: all committed, the tail one row, the moment persisted."""
        await session.flush()
        folded = await session.fold()
        if folded is not None:
            revision, row = folded
            await self._writes.fold(
                session.task_id, fence=session.fence, revision=revision, row=row
            )
        await self._persist(session.task_id)
        if session.standalone and reason is GoodbyeReason.PAUSING:
            await self._tasks.change_facts(session.task_id, pause_standalone)
            self._bus.publish(Moved(session.task_id))

    def build_reported(self, task_id: UUID, facts: Facts) -> None:
        """Tell the session of a build: it says its state again, or ends where it is too old."""
        session = self.find(task_id)
        if session is None:
            return
        try:
            _admit(session.hello, _start_build(facts))
        except StaleReport as error:
            session.end(error)
        else:
            session.outbox.report_state()

    def end(self, task_id: UUID, error: TaskLogsError) -> None:
        """End the task's session, if there is one here."""
        session = self.find(task_id)
        if session is not None:
            session.end(error)

    @contextmanager
    def ending(self, task_id: UUID, error: TaskLogsError) -> Iterator[None]:
        """End the task's session after the block, which raises the fence, unless it fails.

        A commit that finds the fence raised ends it sooner, with the same error.
        """
        session = self.find(task_id)
        if session is not None:
            session.reason_of_fence = error
        try:
            yield
        except BaseException:
            if session is not None:
                session.reason_of_fence = None
            raise
        self.end(task_id, error)

    def confirmed_at(self, task_id: UUID) -> datetime | None:
        """The moment of which the stored log is a true picture, as far as this process knows.

        It reaches the store with commits, at a goodbye, else at the next tick.
        """
        confirmed = self._confirmed.get(task_id)
        return None if confirmed is None else confirmed.moment

    def drain(self, retry_after: timedelta) -> None:
        """Take no new session and ask the open ones to leave; nobody waits for one any more."""
        self._draining = True
        self._fail_awaited(lambda: ServerDraining(retry_after))
        for session in self._open.values():
            session.outbox.drain(retry_after)

    def end_all(self) -> None:
        """End what is still open after a drain."""
        for session in list(self._open.values()):
            session.end(ServerDraining(_RETRY_AFTER))

    async def flush(self) -> None:
        """Write what is known and not stored yet, at the server's end."""
        try:
            await self._note_losses()
            await self._persist()
        except StoreUnavailable:
            _log.warning("sessions.not_flushed")

    async def tick(self) -> None:
        """Persist what changed without a commit and give up idle tails. Every 5 s."""
        await self._note_losses()
        await self._persist()
        tight = sum(one.tail_bytes for one in self._open.values()) > self._tail_bytes
        for session in self._open.values():
            session.release_tail(idle_for=timedelta(0) if tight else _TAIL_IDLE)

    async def _begin(self, task_id: UUID, hello: Hello) -> Session:
        if self._draining:
            raise ServerDraining(_RETRY_AFTER)
        async with self._handshakes.turn():
            # A task of its own: an agent that leaves in the middle must not leave a fence behind
            # that nobody holds, or the task would pass for connected.
            handshake = asyncio.create_task(self._shake_hands(task_id, hello))
            try:
                session = await asyncio.shield(handshake)
            except asyncio.CancelledError:
                handshake.add_done_callback(self._note_abandoned)
                await asyncio.wait([handshake])
                raise
        self._replace(session)
        self._bus.publish(Moved(task_id))
        return session

    async def _shake_hands(self, task_id: UUID, hello: Hello) -> Session:
        raised: list[int] = []
        try:
            with self._observer.shaking_hands():
                async with asyncio.timeout(_HANDSHAKE_SECONDS):
                    opening = await self._store.open_session(
                        task_id,
                        admit=lambda start_build: _admit(hello, start_build),
                        connect=connect_standalone,
                        above=self._undecided.get(task_id, 0),
                        raised=raised.append,
                    )
        except (StoreUnavailable, TimeoutError) as error:
            for fence in raised:
                self._note_undecided(task_id, fence)
            if isinstance(error, StoreUnavailable):
                raise
            raise StoreUnavailable(_RETRY_AFTER) from None
        if self._undecided.get(task_id, 0) < opening.fence:
            self._undecided.pop(task_id, None)
        return Session(
            task_id,
            hello,
            opening,
            limits=self._limits,
            committer=self._committer,
            budget=self._budget,
            room=self._room,
            load_tail=self._store.tail_content,
            confirm=self._confirm,
            clock=self._clock,
            monotonic=self._monotonic,
            observer=self._observer,
        )

    def _note_undecided(self, task_id: UUID, fence: int) -> None:
        # If it was committed the task passes for connected: its loss is noted like any other's. If
        # it was not, the next session must not get the same number, or that would be lost instead.
        self._undecided[task_id] = max(fence, self._undecided.get(task_id, 0))
        self._lost.add((task_id, fence))

    def _store_lost(self) -> None:
        self._fail_awaited(lambda: StoreUnavailable(_RETRY_AFTER))

    def _fail_awaited(self, error: Callable[[], TaskLogsError]) -> None:
        """Let those fail who wait for a session that will not come."""
        for waiting in self._awaited.values():
            for arrival in waiting:
                if not arrival.done():
                    arrival.set_exception(error())

    def _note_abandoned(self, handshake: asyncio.Task[Session]) -> None:
        if handshake.cancelled() or handshake.exception() is not None:
            return
        session = handshake.result()
        self._lost.add((session.task_id, session.fence))  # the next tick notes it

    def _replace(self, session: Session) -> None:
        task_id = session.task_id
        current = self._open.get(task_id)
        if current is not None and current.fence > session.fence:
            # Two handshakes of one task that crossed: the later fence is the one that holds.
            session.end(SessionSuperseded())
            return
        if current is not None:
            current.end(SessionSuperseded())
        self._open[task_id] = session
        if self._draining:
            session.outbox.drain(_RETRY_AFTER)
        for arrival in self._awaited.get(task_id, ()):
            if not arrival.done():
                arrival.set_result(session)

    async def _finish(self, session: Session) -> None:
        session.end(None)
        if self._open.get(session.task_id) is not session:
            return
        del self._open[session.task_id]
        self._lost.add((session.task_id, session.fence))
        # The stream's own task may be cancelled while it leaves; the loss is noted all the same.
        await asyncio.shield(self._note_losses())

    async def _note_losses(self) -> None:
        # Shared: where all streams end at once, one statement notes them all.
        await self._noting.run("losses", self._write_losses)

    async def _write_losses(self) -> None:
        lost = list(self._lost)
        if not lost:
            return
        try:
            # Fences that are superseded by now match no row.
            await self._store.lose_sessions(lost)
        except StoreUnavailable:
            return  # the next tick tries again
        self._lost.difference_update(lost)

    def _confirm(self, session: Session, moment: datetime, is_persisted: bool) -> None:
        known = self._confirmed.get(session.task_id)
        if known is None or known.moment < moment:
            self._confirmed[session.task_id] = _Confirmed(session.fence, moment, is_persisted)

    async def _persist(self, only: UUID | None = None) -> None:
        # Of one task at a goodbye: another's head may be locked.
        moved = {
            task_id: one
            for task_id, one in self._confirmed.items()
            if not one.is_persisted and only in (None, task_id)
        }
        if moved:
            await self._writes.confirm(
                [(task_id, one.fence, one.moment) for task_id, one in moved.items()]
            )
        for one in moved.values():
            one.is_persisted = True
        for task_id in [
            task_id
            for task_id, one in self._confirmed.items()
            if one.is_persisted and task_id not in self._open
        ]:
            del self._confirmed[task_id]


@dataclass(slots=True)
class _Confirmed:
    """A moment of which the stored log is a true picture, and whether the store knows it."""

    fence: int
    moment: datetime
    is_persisted: bool


def _start_build(facts: Facts) -> int | None:
    return facts.build_number if facts.transition is BuildTransition.START else None


def _admit(hello: Hello, start_build: int | None) -> None:
    """Refuse an agent of an older build; during a stop the old workspace still delivers."""
    if hello.build_number is None or start_build is None:
        return
    if start_build > hello.build_number:
        raise StaleReport(f"build {start_build} has started")
