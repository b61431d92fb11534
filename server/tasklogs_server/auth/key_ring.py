"""The current keys: read again at intervals, and when a token names an unknown key."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import structlog

from tasklogs_server.auth.key_sources import Source, Unreadable
from tasklogs_server.auth.keys import Keys, NoKeys, UnusableKeys, parse_jwks

_FIRST_RETRY_SECONDS = 1.0
_READ_SECONDS = 10.0

_log = structlog.get_logger(__name__)


class KeyRing:
    """Keys from a source.

    `every`: time between two reads. `at_most_every`: minimum time before an unknown key causes
    another read. A token with a known key never waits for a read. If the source cannot be read, the
    keys stay as they were. A JWKS without a usable key withdraws all keys.
    """

    def __init__(self, source: Source, *, every: timedelta, at_most_every: timedelta) -> None:
        self._source = source
        self._every_seconds = every.total_seconds()
        self._at_most_every_seconds = at_most_every.total_seconds()
        self._attempted_at: float | None = None
        self._failures = 0
        self._last_failure: str | None = None
        self._wanted = asyncio.Event()
        self._waiting: set[asyncio.Future[None]] = set()
        self.keys: Keys | None = None
        """None: no keys were read yet."""

    async def read(self) -> str | None:
        """Read the source once. Return why it failed, None if it did not."""
        failure = await self._read()
        self._attempted_at = asyncio.get_running_loop().time()
        self._failures = 0 if failure is None else self._failures + 1
        return failure

    async def _read(self) -> str | None:
        try:
            # A source that sends one byte at a time would keep this waiting indefinitely.
            async with asyncio.timeout(_READ_SECONDS):
                document = await self._source.read()
            if document is not None:
                self.keys = parse_jwks(document)
                _log.info(
                    "keys.loaded",
                    source=str(self._source),
                    keys=len(self.keys.keys),
                    skipped=list(self.keys.skipped),
                )
        except NoKeys as error:
            # The document is valid, and the keys are gone from it. An issuer whose only key leaked
            # may withdraw it this way, so keep none of the old keys.
            self.keys = None if self.keys is None else Keys(())
            return str(error)
        except (Unreadable, UnusableKeys) as error:
            return str(error)
        except TimeoutError:
            return f"not read within {_READ_SECONDS:g} s"
        return None

    async def run(self) -> None:
        """Keep the keys fresh until cancelled. Begins with a wait: `read` was called before."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause_seconds()):
                    await self._wanted.wait()
            self._log_failure(await self.read())
            self._wanted.clear()  # this read also serves the callers that asked meanwhile
            for waiting in self._waiting:
                if not waiting.done():
                    waiting.set_result(None)
            self._waiting.clear()

    async def look_again(self) -> None:
        """Read the source now, unless it was read a moment ago. Callers share one read."""
        loop = asyncio.get_running_loop()
        is_reading = self._wanted.is_set() or bool(self._waiting)
        last = self._attempted_at
        if not is_reading and last is not None and loop.time() - last < self._at_most_every_seconds:
            return
        read: asyncio.Future[None] = loop.create_future()
        self._waiting.add(read)
        self._wanted.set()
        try:
            await read
        finally:
            self._waiting.discard(read)

    def _pause_seconds(self) -> float:
        if not self._failures:
            return self._every_seconds
        doubled: float = _FIRST_RETRY_SECONDS * 2 ** min(self._failures - 1, 20)
        return min(self._every_seconds, doubled)

    def _log_failure(self, failure: str | None) -> None:
        if failure is not None and failure != self._last_failure:
            if self.keys and self.keys.keys:
                _log.warning("keys.kept", source=str(self._source), reason=failure)
            else:
                _log.warning("keys.missing", source=str(self._source), reason=failure)
        self._last_failure = failure
