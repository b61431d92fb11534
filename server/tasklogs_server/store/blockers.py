"""Which sessions of Postgres hold the locks that another session waits for."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import asyncpg
import structlog

from tasklogs_server.store.connect import close, connect
from tasklogs_server.store.errors import STORE_ERRORS

# A wait that is shorter is not worth a connection.
_LOOK_EVERY_SECONDS = 1.0

# Of the sessions of other users, an ordinary user sees no more than the process.
_BLOCKERS = """
    SELECT a.pid, coalesce(a.application_name, '') AS application,
           to_char(coalesce(a.xact_start, a.backend_start) AT TIME ZONE 'UTC',
                   'YYYY-MM-DD HH24:MI:SS "UTC"') AS since
      FROM unnest(pg_blocking_pids($1)) AS blocking(pid) JOIN pg_stat_activity a USING (pid)
     ORDER BY a.pid LIMIT 1"""

_log = structlog.get_logger(__name__)


class Blockers:
    """Watches on a connection of its own what a session waits for, and logs it."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.last = "an unknown session"
        """Who held the last lock that the session waited for: process, application and since."""

    async def watch(self, session: int) -> None:
        """Watch the session with this process number until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
            # What it tells is only for people: an error must not end the work that is watched.
            with suppress(*STORE_ERRORS):
                await self._look(session)

    async def _look(self, session: int) -> None:
        connection = await connect(self._dsn)
        try:
            while True:
                self._note(await connection.fetchrow(_BLOCKERS, session))
                await asyncio.sleep(_LOOK_EVERY_SECONDS)
        finally:
            await close(connection)

    def _note(self, blocker: asyncpg.Record | None) -> None:
        if blocker is None:
            return
        since = blocker["since"] or "an unknown time"
        holder = f"process {blocker['pid']} ({blocker['application'] or 'no name'}) since {since}"
        if holder != self.last:
            self.last = holder
            _log.warning("migration.blocked", holder=holder)
