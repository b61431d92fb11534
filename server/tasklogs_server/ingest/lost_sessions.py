"""Lost sessions: the store is told which sessions of this process are over, so leases run."""

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
    """Tells the store which sessions of this process are over.

    Each handshake gets a serial number that no other one of this process ever has, and the store
    keeps it with the task. So the mark of a loss may arrive however late: it names a serial that is
    over, never a later session. Every tick asks the store which serials it believes to be open
    here; all that are not live are over. That finds whatever was missed: a handshake that was
    abandoned, or whose COMMIT had an unknown end, and marks that failed.
    """

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._last_serial = 0
        self._live: set[int] = set()
        """Serials of handshakes under way and of open sessions."""
        self._ended: set[int] = set()
        """Serials that ended since the last mark: they do not wait for the tick."""
        self._marking: Singleflight[Collection[int]] = Singleflight()

    def begin(self) -> int:
        """Return the serial of a handshake that begins now. It is live until it is `over`."""
        self._last_serial += 1
        self._live.add(self._last_serial)
        return self._last_serial

    def over(self, serial: int) -> None:
        """Say that a handshake has failed, or that its session has ended."""
        self._live.discard(serial)
        self._ended.add(serial)

    async def mark_ended(self, serial: int) -> None:
        """Mark all that has ended; wait a moment for the row of `serial` where it is locked.

        What cannot be marked is left to the next tick: while the store is away, nothing is.
        """
        deadline = asyncio.get_running_loop().time() + _LOCKED_WAIT.total_seconds()
        # Singleflight: if many streams end at once, one statement marks them all.
        while serial in await self._marking.run("ended", self._mark_ended):
            if asyncio.get_running_loop().time() >= deadline:
                return
            await asyncio.sleep(_LOCKED_PAUSE_SECONDS)
            self._ended.add(serial)

    async def mark_all(self) -> None:
        """Mark every session that the store believes to be open here and that is over."""
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
