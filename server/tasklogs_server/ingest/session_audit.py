"""Finds the sessions of this process that have ended elsewhere, and ends them here.

Another process may have raised the fence, deleted the task, rotated its token or accepted a newer
build, or the store may have gone back in time. A commit would find out, but a quiet agent has none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from uuid import UUID

import structlog

from tasklogs_server.concurrency.jitter import spread
from tasklogs_server.domain.errors import (
    SessionLost,
    SessionSuperseded,
    StaleReport,
    StoreUnavailable,
    TaskLogsError,
    TaskNotFound,
    Unauthenticated,
)
from tasklogs_server.domain.synced import is_older_build
from tasklogs_server.ingest.session import Session
from tasklogs_server.store.circuit_breaker import CircuitBreaker
from tasklogs_server.store.session_audit import AuditedTask, HeldSession
from tasklogs_server.store.sessions import SessionStore

AUDIT_SECONDS = 5.0

_log = structlog.get_logger(__name__)


class SessionAudit:
    """Compares sessions with the rows of their tasks.

    `open_sessions` returns all of them. `forget` drops what is to be written for a task.
    """

    def __init__(
        self,
        store: SessionStore,
        open_sessions: Callable[[], Iterable[Session]],
        forget: Callable[[UUID], None],
        circuit_breaker: CircuitBreaker,
    ) -> None:
        self._store = store
        self._open_sessions = open_sessions
        self._forget = forget
        self._due = asyncio.Event()
        self._all_due = False
        self._doubted: dict[Session, bool] = {}
        """Sessions that a note concerns, and whether to ask their agents for their state."""
        circuit_breaker.on_return(self.doubt_all)

    def doubt(self, session: Session, *, asks_state: bool = False) -> None:
        """Examine a session soon: another process says that it may have ended.

        `asks_state`: then ask its agent for its state, if it is still open.
        """
        self._doubted[session] = asks_state or self._doubted.get(session, False)
        self._due.set()

    def doubt_all(self) -> None:
        """Examine all sessions soon."""
        self._all_due = True
        self._due.set()

    async def run(self) -> None:
        """Audit all sessions every 4 to 5 s, and when the store comes back, until cancelled.

        Those that another process doubts are examined at once.
        """
        loop = asyncio.get_running_loop()
        next_at = loop.time() + _pause_seconds()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_at):
                    await self._due.wait()
            self._due.clear()
            is_whole = self._all_due or loop.time() >= next_at
            if is_whole:
                self._all_due, next_at = False, loop.time() + _pause_seconds()
            doubted, self._doubted = self._doubted, {}
            try:
                await self.examine(list(self._open_sessions() if is_whole else doubted))
            except StoreUnavailable:
                # The next audit comes when the store is back.
                self._doubted = doubted | self._doubted
            except Exception:
                _log.exception("session_audit.failed")
            else:
                _ask_for_state(doubted)

    async def examine(self, sessions: Sequence[Session]) -> None:
        """End those of these sessions that the rows do not name. Raises StoreUnavailable."""
        held = {(one.task_id, one.fence): one for one in sessions if one.is_open}
        if not held:
            return
        found = await self._store.audit(
            [
                HeldSession(one.task_id, one.fence, one.revision, one.hello.build_number)
                for one in held.values()
            ]
        )
        for task in found:
            session = held[task.task_id, task.fence]
            if session.is_open:
                error = _reason(session, task)
                _log.info(
                    "session.outdated",
                    task=str(task.task_id),
                    reason=type(error).__name__,
                )
                session.end(error)
            if task.is_behind:
                self._forget(task.task_id)


def _pause_seconds() -> float:
    """Return a random wait: the audits of many processes must not come in step."""
    return spread(0.8 * AUDIT_SECONDS, AUDIT_SECONDS).total_seconds()


def _ask_for_state(doubted: Mapping[Session, bool]) -> None:
    for session, asks_state in doubted.items():
        if asks_state and session.is_open:
            session.outbox.report_state()


def _reason(session: Session, task: AuditedTask) -> TaskLogsError:
    """Return what the agent is told: the reason that keeps it away the longest comes first."""
    if task.is_deleted:
        return TaskNotFound(str(task.task_id))
    if session.token_hash is not None and task.token_hash != session.token_hash:
        return Unauthenticated("the agent token was rotated")
    if is_older_build(session.hello.build_number, task.start_build):
        return StaleReport(f"build {task.start_build} has started")
    if task.session_fence is not None and task.session_fence > session.fence:
        return SessionSuperseded()
    # An upload raised the fence while this process seemed dead, or the store went back in time.
    return SessionLost()
