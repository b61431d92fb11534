"""Sessions of other processes: which process has one, and syncs there. Notes are only hints.

A note of the bus says that a session began, or that something ended one. What follows from it is
read from the store: this process ends its session only if the task's rows say so. A sync in another
process counts only if the reader then finds its fence and its revision in the store.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from tasklogs_server.bus.interface import Bus, PeerEvent
from tasklogs_server.bus.notes import (
    BuildReported,
    Deleted,
    HeardNote,
    Note,
    SessionBegan,
    SessionDoubted,
    SyncAnswered,
    SyncAsked,
)
from tasklogs_server.domain.errors import AgentUnreachable, TaskAppFailed, TaskLogsError
from tasklogs_server.domain.synced import StoredState, Synced
from tasklogs_server.ingest.holders import Holder
from tasklogs_server.ingest.session import Session
from tasklogs_server.ingest.sessions import Sessions

_RETRY_AFTER = timedelta(seconds=1)
# The rows of the task name the process, too. This is for readers that read them before.
_MAX_BEGUN = 10_000
# A session's row is committed some turns of the loop before it is open.
_BEGINNING = timedelta(seconds=0.5)
# The other process gives up a sync by itself. This is for an answer that is on its way.
_ANSWER_SECONDS = 1.0
_MAX_ANSWERING = 10_000


class SessionGone(AgentUnreachable):
    """The other process has no session with this fence."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A sync that another process was asked for."""

    holder: Holder
    answer: asyncio.Future[SyncAnswered]

    def answered(self, note: SyncAnswered) -> None:
        if not self.answer.done():
            self.answer.set_result(note)

    def failed(self) -> None:
        """Let the reader try again, perhaps with another session."""
        if not self.answer.done():
            self.answer.set_exception(AgentUnreachable(timedelta(0), _RETRY_AFTER))


class Elsewhere:
    """What this process knows of sessions in others, and the syncs that it asked for there.

    `process_of` reads from the store which process has a task's session, and its fence.
    """

    def __init__(
        self,
        bus: Bus,
        sessions: Sessions,
        *,
        process_of: Callable[[UUID], Awaitable[tuple[UUID, int] | None]],
        sync_timeout: timedelta,
    ) -> None:
        self._bus = bus
        self._sessions = sessions
        self._process_of = process_of
        self._answer_seconds = sync_timeout.total_seconds() + _ANSWER_SECONDS
        self._begun: dict[UUID, Holder] = {}
        """The sessions that began last. It may have ended since."""
        self._asked: dict[int, _Asked] = {}
        """The syncs that are under way."""
        self._asked_of: dict[UUID, set[int]] = defaultdict(set)
        """Those of each task."""
        self._last_id = 0
        bus.listen(self._listen)
        bus.hear(self._heard)
        bus.watch(self._peers_changed)

    def holder(self, task_id: UUID, known: StoredState) -> Holder | None:
        """Return which other process has the task's session, if there is one that is reached.

        `known`: what the caller has found in the store.
        """
        begun = self._begun.get(task_id)
        if begun is not None and begun.fence > known.fence:
            if self._bus.reaches(begun.process):
                return begun
            # It is only a hint, and must not go on hiding what the store says.
            del self._begun[task_id]
        if known.process is None or not self._bus.reaches(known.process):
            return None
        return Holder(known.process, known.fence)

    async def find(self, task_id: UUID) -> Holder | None:
        """Read which other process has the task's session. Raises StoreUnavailable."""
        found = await self._process_of(task_id)
        return Holder(*found) if found is not None and self._bus.reaches(found[0]) else None

    def doubt(self, task_id: UUID, holder: Holder) -> None:
        """Let the other process examine its session: a read has found that it is over."""
        self._bus.send(holder.process, SessionDoubted(task_id))

    async def sync(self, task_id: UUID, holder: Holder, max_staleness: timedelta | None) -> Synced:
        """Bring the store up to date through another process. Return what the sync rests on.

        Raises TaskAppFailed; SessionGone; AgentUnreachable if the note or its answer may be lost.
        """
        if not self._bus.reaches(holder.process):
            raise AgentUnreachable(timedelta(0), _RETRY_AFTER)
        self._last_id += 1
        asked = SyncAsked(
            self._last_id,
            task_id,
            holder.fence,
            None if max_staleness is None else max_staleness.total_seconds(),
        )
        answer: asyncio.Future[SyncAnswered] = asyncio.get_running_loop().create_future()
        self._asked[asked.id] = _Asked(holder, answer)
        self._asked_of[task_id].add(asked.id)
        try:
            self._bus.send(holder.process, asked)
            async with asyncio.timeout(self._answer_seconds):
                answered = await answer
        except TimeoutError:
            raise AgentUnreachable(timedelta(0), _RETRY_AFTER) from None
        finally:
            self._forget(task_id, asked.id)
        if answered.synced is not None:
            return answered.synced
        if answered.failure is not None:
            raise TaskAppFailed(answered.failure)
        if self._begun.get(task_id) == holder:
            del self._begun[task_id]
        raise SessionGone(timedelta(0), _RETRY_AFTER)

    def _heard(self, sender: UUID, note: HeardNote) -> None:
        match note:
            case SyncAnswered(id_):
                asked = self._asked.get(id_)
                if asked is not None and asked.holder.process == sender:
                    asked.answered(note)
            case SessionBegan(task_id, fence):
                self._begin(task_id, Holder(sender, fence))
            case Deleted(task_id) | SessionDoubted(task_id):
                self._sessions.doubt(task_id)
            case BuildReported(task_id):
                self._sessions.doubt(task_id, asks_state=True)

    def _begin(self, task_id: UUID, holder: Holder) -> None:
        known = self._begun.pop(task_id, None)
        if known is not None and known.fence > holder.fence:
            holder = known  # the notes of two processes may come in any order
        self._begun[task_id] = holder
        if len(self._begun) > _MAX_BEGUN:
            del self._begun[next(iter(self._begun))]
        self._sessions.began_elsewhere(task_id, holder)
        self._ended(task_id, holder.fence)

    def _listen(self, note: Note) -> None:
        if isinstance(note, SessionBegan):
            self._ended(note.task_id, note.fence)

    def _ended(self, task_id: UUID, fence: int) -> None:
        """Wait no longer for sessions below this fence: their process may not live any more."""
        for id_ in self._asked_of.get(task_id, ()):
            if self._asked[id_].holder.fence < fence:
                self._asked[id_].failed()

    def _forget(self, task_id: UUID, id_: int) -> None:
        del self._asked[id_]
        of_task = self._asked_of[task_id]
        of_task.discard(id_)
        if not of_task:
            del self._asked_of[task_id]

    def _peers_changed(self, process_id: UUID | None, event: PeerEvent) -> None:
        if event in (PeerEvent.GAP, PeerEvent.LEFT, PeerEvent.MISSED):
            for asked in self._asked.values():
                if process_id in (None, asked.holder.process):
                    asked.failed()
        if event is PeerEvent.GAP:
            self._sessions.doubt_all()
        if event in (PeerEvent.GAP, PeerEvent.JOINED):
            self._sessions.look_elsewhere()


class SyncsForOthers:
    """Syncs that other processes ask for. `run` must run as long as they may ask.

    `sync` returns the result of a sync that begins no earlier than its call. `recent` returns an
    earlier one, if it is young enough.
    """

    def __init__(
        self,
        bus: Bus,
        sessions: Sessions,
        *,
        sync: Callable[[UUID], Awaitable[Synced]],
        recent: Callable[[UUID, timedelta], Synced | None],
    ) -> None:
        self._bus = bus
        self._sessions = sessions
        self._sync = sync
        self._recent = recent
        self._answering: set[asyncio.Task[None]] = set()
        bus.hear(self._heard)

    async def run(self) -> None:
        """Answer until cancelled."""
        try:
            await asyncio.Event().wait()
        finally:
            for answering in self._answering:
                answering.cancel()
            await asyncio.gather(*self._answering, return_exceptions=True)

    def _heard(self, sender: UUID, note: HeardNote) -> None:
        # Readers of another process share syncs, so only a broken one asks for so many.
        if isinstance(note, SyncAsked) and len(self._answering) < _MAX_ANSWERING:
            answering = asyncio.create_task(self._answer(sender, note), name="sync for another")
            self._answering.add(answering)
            answering.add_done_callback(self._answering.discard)

    async def _answer(self, sender: UUID, asked: SyncAsked) -> None:
        synced, failure = None, None
        session = self._sessions.find(asked.task_id)
        if session is None or session.fence < asked.fence:
            self._sessions.doubt(asked.task_id)
            session = await self._beginning(asked)
        if session is not None:
            try:
                synced = await self._synced(asked)
            except TaskAppFailed as error:
                failure = error.reason
            except TaskLogsError:
                pass  # the session has ended
        self._bus.send(sender, SyncAnswered(asked.id, synced, failure))

    async def _beginning(self, asked: SyncAsked) -> Session | None:
        """Wait for a session whose row was committed a moment ago. None: there is none."""
        try:
            arrived = await self._sessions.wait_for(asked.task_id, _BEGINNING)
        except TaskLogsError:
            return None
        return arrived if isinstance(arrived, Session) and arrived.fence >= asked.fence else None

    async def _synced(self, asked: SyncAsked) -> Synced:
        if asked.max_staleness_seconds is not None:
            recent = self._recent(asked.task_id, timedelta(seconds=asked.max_staleness_seconds))
            if recent is not None:
                return recent
        return await self._sync(asked.task_id)
