"""Monitors Postgres on a connection of its own, and sends this process' heartbeat."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from uuid import UUID

import asyncpg
import structlog

from tasklogs_server.concurrency.stall_free_timeout import is_done_within
from tasklogs_server.domain.errors import StoreUnavailable
from tasklogs_server.store.circuit_breaker import CircuitBreaker
from tasklogs_server.store.connect import SESSION_SETTINGS, Connection, connect
from tasklogs_server.store.connections import Connections
from tasklogs_server.store.dead_processes import forget_dead
from tasklogs_server.store.errors import in_words, is_unavailable
from tasklogs_server.store.generations import Generations, read_generation

_LOOK_EVERY_SECONDS = 0.5
_LOOK_AGAIN_SECONDS = 0.05
# A frozen Postgres or a broken network sends no answer. Callers wait at most this long. After that,
# all calls are refused at once. Time in which this process itself was stalled does not count: the
# answer may have arrived but not been read yet.
_ANSWER_SECONDS = 2.0
_HEARTBEAT_SECONDS = 5.0
_SETTINGS = SESSION_SETTINGS | {"synchronous_commit": "off"}

# A process counts as dead 15 s after its last heartbeat. If another process is alive, there was no
# gap without a server, so this process uses the same up_since.
_REGISTER = """
    INSERT INTO processes (process_id, heartbeat_at, up_since)
    SELECT $1, clock_timestamp(), coalesce(
        (SELECT min(up_since) FROM processes
          WHERE heartbeat_at > clock_timestamp() - interval '15 s'),
        clock_timestamp())
    RETURNING up_since"""

# A store that went back in time may lack the row.
_HEARTBEAT = """
    INSERT INTO processes (process_id, heartbeat_at, up_since) VALUES ($1, clock_timestamp(), $2)
    ON CONFLICT (process_id) DO UPDATE SET heartbeat_at = excluded.heartbeat_at"""

_OTHER_HEARTBEATS = """
    SELECT process_id, heartbeat_at FROM processes
     WHERE process_id <> $1 AND heartbeat_at > clock_timestamp() - interval '15 s'"""

# Those of files and processes differ each time.
_NUMBERS = re.compile(r"\d+")

_log = structlog.get_logger(__name__)

Heartbeat = Callable[[Connection], Awaitable[None]]


class Monitor:
    """Checks twice a second whether Postgres answers, and sends the heartbeat of this process.

    It asks for the generation: a proxy may keep the connection while the primary behind it changes.
    `report` is called with whether the store works, each time that this changes. The store works if
    Postgres answers and accepts the heartbeat. A Postgres that is read-only, or whose disk is full,
    does not accept it.
    """

    def __init__(
        self,
        dsn: str,
        circuit_breaker: CircuitBreaker,
        heartbeat: Heartbeat,
        report: Callable[[bool], Awaitable[None]],
        *,
        generations: Generations | None = None,
    ) -> None:
        self._dsn = dsn
        self._circuit_breaker = circuit_breaker
        self._heartbeat = heartbeat
        self._report = report
        self._generations = generations or Generations()
        self._connection: Connection | None = None
        self._beat_at: float | None = None
        self._reported: bool | None = None
        self._failure = ""
        """Why the last question was not answered, in the words of Postgres."""
        self._logged: tuple[str, str] | None = None
        """The failure that was logged last: its kind, and its reason without numbers."""

    async def run(self) -> None:
        """Monitor until cancelled."""
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
                self._logged = None
            self._circuit_breaker.found()
            await self._report_change(await self._beats())
        else:
            if self._is_news("lost"):
                _log.warning("store.lost", reason=self._failure)
            self._circuit_breaker.lost()
            # Other processes may count this one as dead: send a heartbeat as soon as Postgres is
            # back.
            self._beat_at = None
            await self._report_change(False)

    def _is_news(self, kind: str) -> bool:
        """Whether a failure of this kind is not the one that was logged last."""
        failure = (kind, _NUMBERS.sub("", self._failure))
        is_news, self._logged = failure != self._logged, failure
        return is_news

    async def _report_change(self, works: bool) -> None:
        if works is not self._reported:
            self._reported = works
            await self._report(works)

    async def _beats(self) -> bool:
        """Send the heartbeat if it is due; return whether the last one was accepted."""
        now = asyncio.get_running_loop().time()
        if self._beat_at is not None and now - self._beat_at < _HEARTBEAT_SECONDS:
            return True
        accepted = await self._answered(self._beat())
        self._beat_at = now if accepted else None
        if accepted:
            self._logged = None
        elif self._is_news("refused"):
            _log.warning("store.heartbeat_refused", reason=self._failure)
        return accepted

    async def _ask(self) -> None:
        """Raise StoreUnavailable if this leads to a standby, or to a former primary."""
        is_open = self._connection is not None and not self._connection.is_closed()
        try:
            await self._observe()
        except StoreUnavailable:
            if not is_open:
                raise
            self._hang_up()  # a new connection may lead to the primary
            await self._observe()

    async def _observe(self) -> None:
        if self._connection is None or self._connection.is_closed():
            # The check lets another host be tried if this one is a standby or a former primary.
            self._connection = await connect(self._dsn, _SETTINGS, check=self._check)
        else:
            await self._check(self._connection)

    async def _check(self, connection: Connection) -> None:
        self._generations.observe(await read_generation(connection))

    async def _beat(self) -> None:
        assert self._connection is not None
        await self._heartbeat(self._connection)

    async def _answered(self, asking: Awaitable[None]) -> bool:
        """Return whether Postgres answered in time."""
        question = asyncio.ensure_future(asking)
        try:
            if await is_done_within(_ANSWER_SECONDS, question):
                question.result()
                return True
            self._failure = in_words(TimeoutError())
        except (asyncpg.PostgresError, OSError) as error:
            self._failure = in_words(error)
            # Postgres answered with an error: the connection still works.
            if self._connection is not None and is_unavailable(error):
                return False
        except Exception as error:
            self._failure = in_words(error)
            if not isinstance(error, StoreUnavailable) and not is_unavailable(error):
                _log.exception("store.monitor_failed")
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


async def register(connections: Connections, process_id: UUID) -> datetime:
    """Add this process. Return the time since which servers have been up without a gap."""
    async with connections.use() as connection:
        await forget_dead(connection, process_id)
        up_since: datetime = await connection.fetchval(_REGISTER, process_id)
        return up_since


async def heartbeat(connection: Connection, process_id: UUID, up_since: datetime) -> None:
    """Record that this process is alive. Called every 5 s. `up_since`: see `register`."""
    await connection.execute(_HEARTBEAT, process_id, up_since)


async def other_heartbeats(connections: Connections, process_id: UUID) -> dict[UUID, datetime]:
    """Return the last heartbeats of the other processes that may live. Raises StoreUnavailable."""
    async with connections.use() as connection:
        rows = await connection.fetch(_OTHER_HEARTBEATS, process_id)
    return {row["process_id"]: row["heartbeat_at"] for row in rows}
