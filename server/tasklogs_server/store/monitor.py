"""Looking after Postgres on a connection of its own: is it there, does it know that we live?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import asyncpg
import structlog

from tasklogs_server.store.circuit_breaker import CircuitBreaker
from tasklogs_server.store.connections import Connection, connect
from tasklogs_server.store.errors import is_unavailable

_LOOK_EVERY_SECONDS = 0.5
_LOOK_AGAIN_SECONDS = 0.05
# A frozen Postgres, or a network that swallows everything, says nothing: this is how long callers
# wait for it in vain, until all are refused at once.
_ANSWER_SECONDS = 2.0
# Where this process itself was held up, the answer may be there and not read yet.
_HELD_UP_SECONDS = 0.2
_HEARTBEAT_SECONDS = 5.0

_log = structlog.get_logger(__name__)

Heartbeat = Callable[[Connection], Awaitable[None]]


class Watch:
    """Asks Postgres twice a second whether it is there, and sends the heartbeat of this process.

    `tell` hears whether the store can do its work: Postgres answers, and takes the heartbeat (one
    that is read-only or has no disk left does not).
    """

    def __init__(
        self,
        dsn: str,
        circuit_breaker: CircuitBreaker,
        heartbeat: Heartbeat,
        tell: Callable[[bool], Awaitable[None]],
    ) -> None:
        self._dsn = dsn
        self._circuit_breaker = circuit_breaker
        self._heartbeat = heartbeat
        self._tell = tell
        self._connection: Connection | None = None
        self._beat_at: float | None = None
        self._told: bool | None = None

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            while True:
                self._circuit_breaker.suspected.clear()
                await self._look()
                await asyncio.sleep(_LOOK_AGAIN_SECONDS)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_EVERY_SECONDS - _LOOK_AGAIN_SECONDS):
                        await self._circuit_breaker.suspected.wait()
        finally:
            self._hang_up()

    async def _look(self) -> None:
        if await self._answered(self._ask()):
            if self._circuit_breaker.is_away:
                _log.info("store.found")
            self._circuit_breaker.found()
            await self._say(await self._beats())
        else:
            if not self._circuit_breaker.is_away:
                _log.warning("store.lost")
            self._circuit_breaker.lost()
            self._beat_at = None  # at once when it is back: for others this process is gone
            await self._say(False)

    async def _say(self, works: bool) -> None:
        if works is not self._told:
            self._told = works
            await self._tell(works)

    async def _beats(self) -> bool:
        """Send the heartbeat where it is due; whether the last one was taken."""
        now = asyncio.get_running_loop().time()
        if self._beat_at is not None and now - self._beat_at < _HEARTBEAT_SECONDS:
            return True
        taken = await self._answered(self._beat())
        self._beat_at = now if taken else None
        if not taken and self._told:
            _log.warning("store.heartbeat_refused")
        return taken

    async def _ask(self) -> None:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._dsn, synchronous_commit="off")
        await self._connection.fetchval("SELECT 1")

    async def _beat(self) -> None:
        assert self._connection is not None
        await self._heartbeat(self._connection)

    async def _answered(self, asking: Awaitable[None]) -> bool:
        """Whether Postgres did what was asked in time."""
        question = asyncio.ensure_future(asking)
        try:
            for seconds in (_ANSWER_SECONDS, _HELD_UP_SECONDS):
                await asyncio.wait({question}, timeout=seconds)
                if question.done():
                    question.result()
                    return True
        except (asyncpg.PostgresError, OSError) as error:
            # Refused in order: the connection is still good.
            if self._connection is not None and is_unavailable(error):
                return False
        except Exception as error:
            if not is_unavailable(error):
                _log.exception("store.watch_failed")
        finally:
            if not question.done():
                self._hang_up()
                question.cancel()
                await asyncio.wait({question})
        self._hang_up()
        return False

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
