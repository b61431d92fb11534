"""The sessions of this process: which session holds which task, and how they begin and end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from uuid import UUID

import structlog

from tasklogs_server.bus.interface import Bus
from tasklogs_server.bus.notes import Moved, SessionBegan
from tasklogs_server.concurrency.loop_share import LoopShare
from tasklogs_server.concurrency.retry_when_busy import retry_when_busy
from tasklogs_server.domain.errors import (
    ServerDraining,
    SessionLost,
    SessionSuperseded,
    StaleReport,
    StoreUnavailable,
    TaskLogsError,
)
from tasklogs_server.domain.reports import connect_standalone, observe_agent, pause_standalone
from tasklogs_server.domain.status import Facts
from tasklogs_server.domain.synced import is_older_build
from tasklogs_server.ingest.holders import Holder
from tasklogs_server.ingest.lost_sessions import Losses
from tasklogs_server.ingest.messages import AgentState, GoodbyeReason, Hello
from tasklogs_server.ingest.session import Session, SessionResources
from tasklogs_server.ingest.session_audit import SessionAudit
from tasklogs_server.ingest.session_waiters import Arrival, SessionWaiters
from tasklogs_server.limits.handshake_queue import HandshakeQueue
from tasklogs_server.limits.tail_budget import TailBudget
from tasklogs_server.store.circuit_breaker import CircuitBreaker
from tasklogs_server.store.generations import Generations
from tasklogs_server.store.sessions import SessionStore
from tasklogs_server.store.task_transactions import retry_while_held
from tasklogs_server.store.tasks import TaskStore

_RETRY_AFTER = timedelta(seconds=1)
# If the store is slow for one task, agents of other tasks must still get their turn.
_HANDSHAKE_SECONDS = 10.0

_log = structlog.get_logger(__name__)


class Sessions:
    """At most one open session per task in this process. Between processes the fence decides."""

    def __init__(
        self,
        resources: SessionResources,
        *,
        store: SessionStore,
        tasks: TaskStore,
        bus: Bus,
        handshakes: HandshakeQueue,
        tails: TailBudget,
        generations: Generations,
        circuit_breaker: CircuitBreaker | None = None,
    ) -> None:
        self._resources = resources
        self._store = store
        self._tasks = tasks
        self._bus = bus
        self._handshakes = handshakes
        self._circuit_breaker = circuit_breaker or CircuitBreaker()
        self._circuit_breaker.on_loss(self._store_lost)
        self._generations = generations
        self._generations.on_change(self._generation_changed)
        self._open: dict[UUID, Session] = {}
        tails.add(lambda: list(self._open.values()))
        self._waiters = SessionWaiters()
        self._losses = Losses(store)
        self._audit = SessionAudit(
            store, self._open.values, resources.write_behind.forget, self._circuit_breaker
        )
        self._draining = False

    @property
    def open_count(self) -> int:
        """How many sessions are open."""
        return len(self._open)

    @property
    def share(self) -> LoopShare:
        """The share of the loop's time for long messages of agents."""
        return self._resources.share

    @property
    def is_draining(self) -> bool:
        """Whether new sessions are refused."""
        return self._draining

    @asynccontextmanager
    async def connect(
        self, task_id: UUID, hello: Hello, *, token_hash: bytes | None = None
    ) -> AsyncIterator[Session]:
        """Raise the task's fence for one stream. The session ends with the block.

        `token_hash`: of the token that opens the stream. If it is rotated, the session ends.

        Raises StaleReport, LimitExceeded (too many connect at once), ServerDraining, TaskNotFound,
        StoreUnavailable.
        """
        session = await self._begin(task_id, hello, token_hash)
        try:
            yield session
        finally:
            await self._finish(session)

    def find(self, task_id: UUID) -> Session | None:
        """Return the task's open session, if this process has it."""
        session = self._open.get(task_id)
        return session if session is not None and session.is_open else None

    async def wait_for(self, task_id: UUID, timeout: timedelta) -> Arrival:
        """Wait for the task's next session, here or in another process.

        None: the store may know of one in another process. Raises AgentUnreachable. Raises
        StoreUnavailable or ServerDraining at once if no agent can connect.
        """
        self._circuit_breaker.check()
        if self._draining:
            raise ServerDraining(_RETRY_AFTER)
        return await self._waiters.wait_for(task_id, timeout)

    async def run_audit(self) -> None:
        """End the sessions that have ended elsewhere, until cancelled. See SessionAudit."""
        await self._audit.run()

    async def refute(self, task_id: UUID, fence: int) -> None:
        """End the session with this fence: a read has found that the store does not name it."""
        session = self.find(task_id)
        if session is None or session.fence != fence:
            return
        try:
            with suppress(StoreUnavailable):
                await self._audit.examine([session])  # it ends the session, and tells why
        finally:
            session.end(SessionLost())

    def doubt(self, task_id: UUID, *, asks_state: bool = False) -> None:
        """Examine the task's session soon: it may have ended elsewhere.

        `asks_state`: then ask its agent for its state, if it is still open.
        """
        session = self.find(task_id)
        if session is not None:
            self._audit.doubt(session, asks_state=asks_state)

    def doubt_all(self) -> None:
        """Examine all sessions soon."""
        self._audit.doubt_all()

    def began_elsewhere(self, task_id: UUID, holder: Holder) -> None:
        """Note that a session began in another process. One with a lower fence is over."""
        session = self.find(task_id)
        if session is not None and session.fence < holder.fence:
            self._audit.doubt(session)
        self._waiters.arrived_elsewhere(task_id, holder)

    def look_elsewhere(self) -> None:
        """Let readers that wait for an agent look whether another process has its session."""
        self._waiters.look_elsewhere()

    async def report(self, session: Session, state: AgentState) -> None:
        """Store the agent's own report, if it concerns the latest build.

        Raises SessionSuperseded if the session has ended elsewhere. Then nothing is stored.
        """

        def change(facts: Facts) -> Facts:
            build = session.hello.build_number
            return observe_agent(facts, build, state.lifecycle, state.health) or facts

        await retry_when_busy(lambda: self._change_facts(session, change))

    async def goodbye(self, session: Session, reason: GoodbyeReason) -> None:
        """End a session gracefully: commit everything, fold the tail, write the confirmed time."""
        await session.flush()
        folded = await session.fold()
        write_behind = self._resources.write_behind
        if folded is not None:
            revision, row = folded
            await write_behind.fold(
                session.task_id,
                generation=session.generation,
                fence=session.fence,
                revision=revision,
                row=row,
            )
        await write_behind.persist(session.task_id)
        if session.standalone and reason is GoodbyeReason.PAUSING:
            await self._change_facts(session, pause_standalone)

    async def _change_facts(self, session: Session, change: Callable[[Facts], Facts]) -> None:
        try:
            await self._tasks.change_facts(session.task_id, change, fence=session.fence)
        except SessionSuperseded:
            with suppress(StoreUnavailable):
                await self._audit.examine([session])  # it may tell more
            raise
        self._bus.publish(Moved(session.task_id))

    def build_reported(self, task_id: UUID, facts: Facts) -> None:
        """Ask the session's agent for its state again. End the session if its build is too old."""
        session = self.find(task_id)
        if session is None:
            return
        try:
            _admit(session.hello, facts.start_build)
        except StaleReport as error:
            session.end(error)
        else:
            session.outbox.report_state()

    def end(self, task_id: UUID, error: TaskLogsError) -> None:
        """End the task's session, if it is open here."""
        session = self.find(task_id)
        if session is not None:
            session.end(error)

    @contextmanager
    def ending(self, task_id: UUID, error: TaskLogsError) -> Iterator[None]:
        """End the task's session after the block, which raises the fence, unless it fails.

        If a commit finds the fence raised before that, it ends the session with the same error.
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

    def drain(self, retry_after: timedelta) -> None:
        """Refuse new sessions, ask open ones to disconnect, and end the waits of readers."""
        self._draining = True
        self._waiters.fail_all(lambda: ServerDraining(retry_after))
        for session in self._open.values():
            session.outbox.drain(retry_after)

    def end_all(self) -> None:
        """End the sessions that are still open after a drain."""
        for session in list(self._open.values()):
            session.end(ServerDraining(_RETRY_AFTER))

    async def flush(self) -> None:
        """Write what the store does not have yet. Called when the server stops."""
        try:
            await self._write_all()
        except StoreUnavailable:
            _log.warning("flush.failed")

    async def tick(self) -> None:
        """Write what changed without a commit. Called every 5 s."""
        await self._write_all()

    async def _write_all(self) -> None:
        await self._losses.mark_all()
        await self._resources.write_behind.persist_all(open_tasks=self._open)

    async def _begin(self, task_id: UUID, hello: Hello, token_hash: bytes | None) -> Session:
        if self._draining:
            raise ServerDraining(_RETRY_AFTER)
        # It gives its turn back in each pause: while another transaction holds the task's row,
        # agents of other tasks get theirs.
        session = await retry_while_held(lambda: self._in_turn(task_id, hello))
        if session.generation != self._generations.current:
            # The store changed after the handshake. Nothing is awaited between this and _replace.
            self._losses.over(session.serial)
            raise StoreUnavailable(_RETRY_AFTER)
        session.token_hash = token_hash
        self._replace(session)
        self._bus.publish(Moved(task_id))
        self._bus.publish(SessionBegan(task_id, session.fence))
        return session

    async def _in_turn(self, task_id: UUID, hello: Hello) -> Session:
        async with self._handshakes.turn():
            return await self._shake_hands_uncancelled(task_id, hello)

    async def _shake_hands_uncancelled(self, task_id: UUID, hello: Hello) -> Session:
        """Return the session. Its serial is live before the handshake begins.

        The handshake runs in a task of its own, so that an agent that disconnects cancels no
        statement.
        """
        serial = self._losses.begin()
        handshake = asyncio.create_task(self._shake_hands(task_id, hello, serial))
        try:
            return await asyncio.shield(handshake)
        except asyncio.CancelledError:
            handshake.add_done_callback(lambda done: self._abandon(done, serial))
            await asyncio.wait([handshake])
            raise
        except BaseException:
            self._losses.over(serial)
            raise

    async def _shake_hands(self, task_id: UUID, hello: Hello, serial: int) -> Session:
        try:
            with self._resources.observer.shaking_hands():
                async with asyncio.timeout(_HANDSHAKE_SECONDS):
                    opening = await self._store.open_session(
                        task_id,
                        serial=serial,
                        admit=lambda start_build: _admit(hello, start_build),
                        connect=connect_standalone,
                    )
        except TimeoutError:
            raise StoreUnavailable(_RETRY_AFTER) from None
        return Session(task_id, hello, opening, serial=serial, resources=self._resources)

    def _abandon(self, handshake: asyncio.Task[Session], serial: int) -> None:
        self._losses.over(serial)  # the next tick marks it
        if not handshake.cancelled():
            handshake.exception()  # retrieve it: no caller is left

    def _replace(self, session: Session) -> None:
        """Make this the task's session, unless the current one has a higher fence."""
        task_id = session.task_id
        current = self._open.get(task_id)
        if current is not None and current.fence > session.fence:
            session.end(SessionSuperseded())
            return
        if current is not None:
            current.end(SessionSuperseded())
        self._open[task_id] = session
        if self._draining:
            session.outbox.drain(_RETRY_AFTER)
        self._waiters.arrived(session)

    async def _finish(self, session: Session) -> None:
        session.end(None)
        self._losses.over(session.serial)
        if self._open.get(session.task_id) is not session:
            return
        del self._open[session.task_id]
        # The stream's own task may be cancelled now. The loss must still be marked.
        await asyncio.shield(self._losses.mark_ended(session.serial))

    def _generation_changed(self) -> None:
        """End all sessions: the store may lack what they have acknowledged."""
        for session in list(self._open.values()):
            session.end(SessionLost())

    def _store_lost(self) -> None:
        self._waiters.fail_all(lambda: StoreUnavailable(_RETRY_AFTER))


def _admit(hello: Hello, start_build: int | None) -> None:
    """Refuse an agent of an older build. During a stop the old workspace may still append."""
    if is_older_build(hello.build_number, start_build):
        raise StaleReport(f"build {start_build} has started")
