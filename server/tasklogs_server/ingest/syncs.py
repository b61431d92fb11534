"""Syncs for readers: wait for an agent, ask it for a sync, and share the result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from uuid import UUID

from tasklogs_server.concurrency.singleflight import Singleflight
from tasklogs_server.domain.errors import AgentUnreachable, TaskAppFailed
from tasklogs_server.domain.synced import StoredState, Synced
from tasklogs_server.ingest.elsewhere import Elsewhere, SessionGone
from tasklogs_server.ingest.holders import Holder
from tasklogs_server.ingest.session import Session
from tasklogs_server.ingest.session_waiters import Arrival
from tasklogs_server.ingest.sessions import Sessions


class Syncs:
    """The syncs of all tasks. For each task at most one is under way and one is next."""

    def __init__(
        self,
        sessions: Sessions,
        *,
        agent_wait: timedelta,
        sync_timeout: timedelta,
        elsewhere: Elsewhere | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`elsewhere`: sessions of other processes, if there are others."""
        self._sessions = sessions
        self.elsewhere = elsewhere
        self._agent_wait = agent_wait
        self._sync_timeout = sync_timeout
        self._monotonic = monotonic
        # A sync that has begun goes on without its callers. Otherwise callers with short deadlines
        # would ask the agent again and again, and no sync would ever be complete.
        self._shared: Singleflight[Synced] = Singleflight(finishes=True)

    def request(
        self, task_id: UUID, *, max_staleness: timedelta | None, time_left: timedelta | None
    ) -> SyncRequest:
        """Begin to wait for a sync, for one reader.

        `max_staleness`: an earlier sync that began at most so long ago is enough. `time_left`: the
        time until the caller's own deadline.
        """
        time_left = timedelta.max if time_left is None else time_left
        return SyncRequest(
            self,
            self._sessions,
            task_id,
            max_staleness=max_staleness,
            waits=_Budget(min(self._agent_wait, time_left)),
            syncing=_Budget(min(self._sync_timeout, time_left)),
            answer_by=asyncio.get_running_loop().time() + time_left.total_seconds(),
        )

    async def run(self, task_id: UUID) -> Synced:
        """Return the result of a sync that begins no earlier than this call.

        Raises AgentUnreachable if there is no session, or it ends; TaskAppFailed.
        """
        return await self._shared.run(task_id, partial(self._sync, task_id))

    async def run_elsewhere(
        self, task_id: UUID, holder: Holder, max_staleness: timedelta | None
    ) -> Synced:
        """Return the result of a sync in another process that begins no earlier than this call.

        Raises what `Elsewhere.sync` raises.
        """
        assert self.elsewhere is not None
        work = partial(self.elsewhere.sync, task_id, holder, max_staleness)
        return await self._shared.run((task_id, holder, max_staleness), work)

    def recent_of(self, task_id: UUID, max_staleness: timedelta) -> Synced | None:
        """Return the last sync of a task's session in this process; see `recent`."""
        session = self._sessions.find(task_id)
        return None if session is None else self.recent(session, max_staleness)

    def recent(self, session: Session, max_staleness: timedelta) -> Synced | None:
        """Return the session's last sync, if it began at most `max_staleness` ago."""
        syncs = session.syncs
        if syncs.last_began is None:
            return None
        age_seconds = self._monotonic() - syncs.last_began
        return syncs.last if age_seconds <= max_staleness.total_seconds() else None

    async def _sync(self, task_id: UUID) -> Synced:
        # Look it up now: the session may have ended while this run waited for its turn.
        session = self._sessions.find(task_id)
        if session is None:
            raise AgentUnreachable(timedelta(0), timedelta(0))
        return await session.sync(self._sync_timeout)


@dataclass(slots=True)
class _Budget:
    """The time that one reader may spend on something, over all its attempts."""

    whole: timedelta
    left_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.left_seconds = self.whole.total_seconds()

    @contextmanager
    def spent(self) -> Iterator[float]:
        """Count the block's time. Yields the seconds that are left."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            yield self.left_seconds
        finally:
            self.left_seconds = max(0.0, self.left_seconds - (loop.time() - began))


class SyncRequest:
    """One reader's request for a log that is up to date.

    Agents may come and go meanwhile: all waits for an agent together take at most `waits`, all
    syncs together at most `syncing`, and all of it ends at `answer_by` (of the loop's clock).
    """

    def __init__(
        self,
        syncs: Syncs,
        sessions: Sessions,
        task_id: UUID,
        *,
        max_staleness: timedelta | None,
        waits: _Budget,
        syncing: _Budget,
        answer_by: float,
    ) -> None:
        self._syncs = syncs
        self._sessions = sessions
        self.task_id = task_id
        self._max_staleness = max_staleness
        self._waits = waits
        self._syncing = syncing
        self._answer_by = answer_by
        self._over: set[Holder] = set()
        """Sessions of other processes that have ended."""
        self._found_in: Holder | None = None
        """The other process whose sync was the last result."""
        self._ahead: tuple[Holder, asyncio.Task[Synced]] | None = None
        """The sync that `begin` began, and where."""

    def begin(self, known: StoredState) -> None:
        """Begin a sync now if `done` is likely to want one in another process.

        `known`: what an earlier reader has found in the store. `done` uses the sync only if the
        session is there.
        """
        elsewhere = self._syncs.elsewhere
        if elsewhere is None or self._sessions.find(self.task_id) is not None:
            return
        holder = elsewhere.holder(self.task_id, known)
        if holder is not None:
            sync = self._syncs.run_elsewhere(self.task_id, holder, self._max_staleness)
            self._ahead = holder, asyncio.ensure_future(sync)

    def close(self) -> None:
        """Wait no longer for what `begin` began."""
        if self._ahead is not None:
            (_, sync), self._ahead = self._ahead, None
            sync.add_done_callback(_retrieve)
            sync.cancel()

    async def done(self, known: StoredState) -> Synced:
        """Wait until the store has everything that the task app showed when this was called.

        `known`: what the reader has found in the store. It ends a session that another process has
        superseded. Before it answers, the reader checks that the store holds the result (`Synced`),
        and otherwise calls `refute` and `done` again. Raises AgentUnreachable, TaskAppFailed.
        """
        while True:
            session = await self._session(known)
            self._found_in = session if isinstance(session, Holder) else None
            if self._max_staleness is not None and not isinstance(session, Holder):
                recent = self._syncs.recent(session, self._max_staleness)
                if recent is not None:
                    return recent
            try:
                return await self._sync()
            except SessionGone:
                if self._found_in is not None:
                    self._over.add(self._found_in)
            except AgentUnreachable:
                continue  # the stream ended during the sync: another one may connect in time

    async def refute(self, synced: Synced) -> None:
        """End the session of a sync that the store does not hold."""
        if self._found_in is None:
            await self._sessions.refute(self.task_id, synced.fence)
        elif self._syncs.elsewhere is not None:
            self._over.add(self._found_in)
            self._syncs.elsewhere.doubt(self.task_id, self._found_in)

    async def _session(self, known: StoredState) -> Session | Holder:
        """Return the session of the task, or the next one, here or in another process."""
        session = self._sessions.find(self.task_id)
        if session is not None and session.is_outdated_by(known):
            await self._sessions.refute(self.task_id, session.fence)
            session = self._sessions.find(self.task_id)
        if session is not None:
            return session
        elsewhere = self._syncs.elsewhere
        holder = None if elsewhere is None else elsewhere.holder(self.task_id, known)
        while holder is None or holder in self._over:
            arrived = await self._next_session()
            if isinstance(arrived, Holder):
                holder = arrived
            elif arrived is not None:
                return arrived
            elif elsewhere is not None:
                holder = await elsewhere.find(self.task_id)
        return holder

    async def _next_session(self) -> Arrival:
        with self._waits.spent() as left_seconds:
            left_seconds = max(0.0, min(left_seconds, self._answer_by - _now()))
            try:
                return await self._sessions.wait_for(self.task_id, timedelta(seconds=left_seconds))
            except AgentUnreachable as error:
                raise AgentUnreachable(self._waits.whole, error.retry_after) from None

    async def _sync(self) -> Synced:
        # The limit also covers the wait for another reader's sync, before this one begins.
        with self._syncing.spent() as left_seconds:
            try:
                async with asyncio.timeout_at(min(_now() + left_seconds, self._answer_by)):
                    if self._found_in is None:
                        return await self._syncs.run(self.task_id)
                    return await self._synced_in(self._found_in)
            except TimeoutError:
                seconds = self._syncing.whole.total_seconds()
                raise TaskAppFailed(
                    f"the task app did not answer within {round(seconds, 2):g} s"
                ) from None

    async def _synced_in(self, holder: Holder) -> Synced:
        """Return the result of a sync there that began no earlier than this request."""
        if self._ahead is not None and self._ahead[0] == holder:
            (_, sync), self._ahead = self._ahead, None
            try:
                return await sync
            finally:
                sync.cancel()  # if this call is cancelled
        return await self._syncs.run_elsewhere(self.task_id, holder, self._max_staleness)


def _retrieve(sync: asyncio.Task[Synced]) -> None:
    if not sync.cancelled():
        sync.exception()


def _now() -> float:
    return asyncio.get_running_loop().time()
