"""Lost sessions: records in the store which sessions have ended, so that leases run."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import timedelta

import structlog

from tasklogs_server.concurrency.singleflight import Singleflight
from tasklogs_server.domain.errors import StoreUnavailable
from tasklogs_server.store.sessions import SessionStore

_LOCKED_PAUSE_SECONDS = 0.05
_LOCKED_WAIT = timedelta(seconds=2)

_log = structlog.get_logger(__name__)


class Losses:
    """Records in the store which sessions of this process have ended.

    Each handshake gets a serial number that no other handshake of this process has. The store keeps
    it with the task. So a late mark does no harm: it names a session that has ended, never a later
    one. Each tick asks the store which serials it records as open in this process, and marks those
    that are not live. That finds what was missed: an abandoned handshake, a handshake whose COMMIT
    had an unknown outcome, and a mark that failed.
    """

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._last_serial = 0
        self._live: set[int] = set()
        """Serials of handshakes under way and of open sessions."""
        self._ended: set[int] = set()
        """Serials that ended since the last mark. They are marked before the next tick."""
        self._marking: Singleflight[Collection[int]] = Singleflight()

    def begin(self) -> int:
        """Return the serial of a handshake that begins now. It is live until `over` is called."""
        self._last_serial += 1
        self._live.add(self._last_serial)
        return self._last_serial

    def over(self, serial: int) -> None:
        """Note that a handshake has failed, or that its session has ended."""
        self._live.discard(serial)
        self._ended.add(serial)

    async def mark_ended(self, serial: int) -> None:
        """Mark all ended sessions. If the row of `serial` is locked, wait up to 2 s for it.

        The next tick marks what could not be marked now. While the store is away, nothing is
        marked.
        """
        deadline = asyncio.get_running_loop().time() + _LOCKED_WAIT.total_seconds()
        # Singleflight: if many streams end at once, one statement marks them all.
        while serial in await self._marking.run("ended", self._mark_ended):
            if asyncio.get_running_loop().time() >= deadline:
                return
            await asyncio.sleep(_LOCKED_PAUSE_SECONDS)
            self._ended.add(serial)

    async def mark_all(self) -> None:
        """Mark every ended session that the store records as open in this process."""
        self._ended.clear()
        try:
            over = await self._store.open_serials(self._last_serial, but_for=tuple(self._live))
            if over:
                await self._store.lose_sessions(over)
        except StoreUnavailable:
            pass  # the next tick tries again
        except Exception:  # one row that cannot be read must not stop the rest of the tick
            _log.exception("losses.failed")

    async def _mark_ended(self) -> Collection[int]:
        ended, self._ended = self._ended, set()
        try:
            return await self._store.lose_sessions(ended) if ended else ()
        except StoreUnavailable:
            return ()
