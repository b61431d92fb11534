"""Generations: which history of the store a connection leads to.

After a failover to an asynchronous standby, or after a backup was restored, the store lacks commits
that it had acknowledged. It then has another history, and its revisions count changes of that
history. A generation names one unbroken history.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import asyncpg
import structlog

from tasklogs_server.domain.errors import StoreUnavailable
from tasklogs_server.store.errors import RETRY_AFTER

if TYPE_CHECKING:
    from typing import TypeAlias

    _AnyConnection: TypeAlias = asyncpg.Connection[asyncpg.Record]
else:
    _AnyConnection = asyncpg.Connection

UNKNOWN = ""
"""The generation of a Postgres that does not tell it."""

# A promotion begins a new timeline: the first eight digits of the name of the WAL file. The system
# identifier is that of initdb. NULL: a standby, which has no WAL of its own.
GENERATION = """
    SELECT CASE WHEN NOT pg_is_in_recovery() THEN
               (SELECT system_identifier::text FROM pg_control_system()) || '/'
               || left(pg_walfile_name(pg_current_wal_lsn()), 8)
           END"""

# Some managed Postgres lack these functions, or do not allow them.
NOT_TOLD = (asyncpg.SyntaxOrAccessError, asyncpg.FeatureNotSupportedError)

_log = structlog.get_logger(__name__)


async def read_generation(connection: _AnyConnection) -> str | None:
    """Return the generation, UNKNOWN if Postgres does not tell it; None: it is a standby."""
    try:
        generation: str | None = await connection.fetchval(GENERATION)
    except NOT_TOLD:
        return UNKNOWN
    return generation


class Generations:
    """The generation of the store, as the connections of this process find it.

    The newest one is the current one. A connection to an older one is refused, because a former
    primary may still answer.
    """

    def __init__(self) -> None:
        self._current: str | None = None
        self._listeners: list[Callable[[], None]] = []
        self._refused: set[str | None] = set()
        """What was refused since the last change. It is logged once."""

    @property
    def current(self) -> str:
        """The current generation; UNKNOWN before the first connection."""
        return self._current or UNKNOWN

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever the generation changes, before the new one is used.

        Listeners are called in the order in which they registered. They must not wait.
        """
        self._listeners.append(listener)

    def observe(self, generation: str | None) -> None:
        """Note the generation that a connection has; None: it leads to a standby.

        If it is newer, it becomes the current one. Raises StoreUnavailable if it is an older one or
        None: the connection must not be used.
        """
        if generation == self._current and generation is not None:
            return
        if generation is None or _is_older(generation, self._current):
            if generation not in self._refused:
                self._refused.add(generation)
                _log.warning("generation.refused", generation=generation, current=self._current)
            raise StoreUnavailable(RETRY_AFTER)
        former, self._current = self._current, generation
        self._refused.clear()
        if generation == UNKNOWN:
            _log.warning("generation.withheld")
        if former is None:
            return
        _log.warning("generation.changed", former=former, generation=generation)
        for listener in self._listeners:
            try:
                listener()
            except Exception:  # the others must still be told
                _log.exception("generation.listener_failed")


def _is_older(generation: str, current: str | None) -> bool:
    """Whether this is an earlier timeline of the same system."""
    if not generation or not current:
        return False
    system, timeline = generation.split("/")
    current_system, current_timeline = current.split("/")
    return system == current_system and int(timeline, 16) < int(current_timeline, 16)
