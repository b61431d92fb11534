"""Readers that wait for a task's agent to connect."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from typing import TypeAlias
from uuid import UUID

from tasklogs_server.domain.errors import AgentUnreachable, TaskLogsError
from tasklogs_server.ingest.holders import Holder
from tasklogs_server.ingest.session import Session

_RETRY_AFTER = timedelta(seconds=1)

# None: the session may have begun in another process.
Arrival: TypeAlias = Session | Holder | None


class SessionWaiters:
    """The readers that wait, by task."""

    def __init__(self) -> None:
        # Those that came first are told first, so that a simulation can repeat a run.
        self._waiting: dict[UUID, dict[asyncio.Future[Arrival], None]] = defaultdict(dict)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    async def wait_for(self, task_id: UUID, timeout: timedelta) -> Arrival:
        """Wait for the task's next session, here or in another process.

        None: the store may know of one. Raises AgentUnreachable after `timeout`, and the error of
        `fail_all`.
        """
        arrival: asyncio.Future[Arrival] = asyncio.get_running_loop().create_future()
        waiting = self._waiting[task_id]
        waiting[arrival] = None
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                return await arrival
        except TimeoutError:
            raise AgentUnreachable(timeout, _RETRY_AFTER) from None
        finally:
            del waiting[arrival]
            if not waiting:
                self._waiting.pop(task_id, None)

    def arrived(self, session: Session) -> None:
        """Give the session to all readers that wait for its task."""
        self._give(session.task_id, session)

    def arrived_elsewhere(self, task_id: UUID, holder: Holder) -> None:
        """Tell all readers that wait for this task which process has its session."""
        self._give(task_id, holder)

    def look_elsewhere(self) -> None:
        """Let all readers that wait look which process has the session of their task."""
        for task_id in list(self._waiting):
            self._give(task_id, None)

    def _give(self, task_id: UUID, arrived: Arrival) -> None:
        for arrival in self._waiting.get(task_id, ()):
            if not arrival.done():
                arrival.set_result(arrived)

    def fail_all(self, error: Callable[[], TaskLogsError]) -> None:
        """End all waits, each with an error of its own."""
        for waiting in self._waiting.values():
            for arrival in waiting:
                if not arrival.done():
                    arrival.set_exception(error())
