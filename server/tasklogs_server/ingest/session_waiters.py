"""Readers that wait for a task's agent to connect."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from tasklogs_server.domain.errors import AgentUnreachable, TaskLogsError
from tasklogs_server.ingest.session import Session

_RETRY_AFTER = timedelta(seconds=1)


class SessionWaiters:
    """The readers that wait, by task."""

    def __init__(self) -> None:
        self._waiting: dict[UUID, set[asyncio.Future[Session]]] = defaultdict(set)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    async def wait_for(self, task_id: UUID, timeout: timedelta) -> Session:
        """Wait for the task's next session.

        Raises AgentUnreachable after `timeout`, and the error of `fail_all`.
        """
        arrival: asyncio.Future[Session] = asyncio.get_running_loop().create_future()
        waiting = self._waiting[task_id]
        waiting.add(arrival)
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                return await arrival
        except TimeoutError:
            raise AgentUnreachable(timeout, _RETRY_AFTER) from None
        finally:
            waiting.discard(arrival)
            if not waiting:
                self._waiting.pop(task_id, None)

    def arrived(self, session: Session) -> None:
        """Give the session to all readers that wait for its task."""
        for arrival in self._waiting.get(session.task_id, ()):
            if not arrival.done():
                arrival.set_result(session)

    def fail_all(self, error: Callable[[], TaskLogsError]) -> None:
        """End all waits, each with an error of its own."""
        for waiting in self._waiting.values():
            for arrival in waiting:
                if not arrival.done():
                    arrival.set_exception(error())
