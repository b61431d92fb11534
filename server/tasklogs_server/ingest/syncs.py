"""Syncs for readers: wait for an agent, ask it for a sync, and share the result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from tasklogs_server.concurrency.singleflight import Singleflight
from tasklogs_server.domain.errors import AgentUnreachable, TaskAppFailed
from tasklogs_server.ingest.session import Session
from tasklogs_server.ingest.sessions import Sessions


class Syncs:
    """The syncs of all tasks. For each task at most one is under way and one is next."""

    def __init__(
        self,
        sessions: Sessions,
        *,
        agent_wait: timedelta,
        sync_timeout: timedelta,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sessions = sessions
        self._agent_wait = agent_wait
        self._sync_timeout = sync_timeout
        self._monotonic = monotonic
        self._shared: Singleflight[datetime] = Singleflight()

    async def sync(
        self, task_id: UUID, *, max_staleness: timedelta | None, time_left: timedelta | None
    ) -> datetime:
        """Wait until the store has everything that the task app showed when this was called.

        Returns when the sync began. `max_staleness`: an earlier sync that began at most so long ago
        is enough. `time_left`: the time until the caller's own deadline. Raises AgentUnreachable,
        TaskAppFailed.
        """
        loop = asyncio.get_running_loop()
        if time_left is None:
            time_left = timedelta.max
        wait = min(self._agent_wait, time_left)
        wait_until = loop.time() + wait.total_seconds()
        answer_by = loop.time() + time_left.total_seconds()
        while True:
            session = self._sessions.find(task_id)
            if session is None:
                left = timedelta(seconds=max(0.0, wait_until - loop.time()))
                session = await self._wait_for_session(task_id, left, wait)
            sync_by = loop.time() + self._sync_timeout.total_seconds()
            if max_staleness is not None:
                recent = self._recent(session, max_staleness)
                if recent is not None:
                    return recent
            try:
                # The limit also covers the wait for another reader's sync, before this one begins.
                async with asyncio.timeout_at(min(sync_by, answer_by)):
                    return await self._shared.run(task_id, partial(self._sync, task_id))
            except AgentUnreachable:
                continue  # the stream ended during the sync: another one may connect in time
            except TimeoutError:
                seconds = min(self._sync_timeout, time_left).total_seconds()
                raise TaskAppFailed(
                    f"the task app did not answer within {round(seconds, 2):g} s"
                ) from None

    async def _wait_for_session(self, task_id: UUID, left: timedelta, whole: timedelta) -> Session:
        try:
            return await self._sessions.wait_for(task_id, left)
        except AgentUnreachable as error:
            raise AgentUnreachable(whole, error.retry_after) from None

    async def _sync(self, task_id: UUID) -> datetime:
        # Look it up now: the session may have ended while this run waited for its turn.
        session = self._sessions.find(task_id)
        if session is None:
            raise AgentUnreachable(timedelta(0), timedelta(0))
        return await session.sync(self._sync_timeout)

    def _recent(self, session: Session, max_staleness: timedelta) -> datetime | None:
        syncs = session.syncs
        if syncs.synced_monotonic is None:
            return None
        age_seconds = self._monotonic() - syncs.synced_monotonic
        return syncs.synced_at if age_seconds <= max_staleness.total_seconds() else None
