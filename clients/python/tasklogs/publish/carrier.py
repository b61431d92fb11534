"""Keeps a session with the server open: dials, waits, dials again, leaves when asked to."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from tasklogs.connection.tls import Tls, UnusableTls
from tasklogs.publish.channel import open_channel
from tasklogs.publish.departure import Departure, LeftWithoutGoodbye
from tasklogs.publish.event_log import EventLog
from tasklogs.publish.own_token import OwnToken, Wait
from tasklogs.publish.reconnect import Backoff, StreamEnded, StreamUsedUp
from tasklogs.publish.sent_tails import SentTails
from tasklogs.publish.session import Session
from tasklogs.publish.settings import StreamSettings
from tasklogs.publish.source import Source
from tasklogs.publish.stream_limit import StreamLimit
from tasklogs.tracing.base import Tracing
from tasklogs.v1.task_agents_pb2_grpc import TaskAgentsStub

_log = EventLog()


@dataclass(frozen=True, slots=True)
class ServerPlace:
    """Where the server is. `address` is HOST:PORT; `tls` None: plain text."""

    address: str
    tls: Tls | None = None


class Carrier:
    """Carries what a source shows to the server, over one session after another."""

    def __init__(
        self,
        server: ServerPlace,
        token: OwnToken,
        source: Source,
        departure: Departure,
        settings: StreamSettings,
        *,
        build_number: int | None = None,
        tracing: Tracing | None = None,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self._token = token
        self._source = source
        self.departure = departure
        self._settings = settings
        self._build_number = build_number
        self._tracing = tracing or Tracing()
        self._rng = rng or random.Random()
        self._stream_limit = StreamLimit(clock)
        self.last_error: StreamEnded | None = None
        """Why the last stream ended."""

    async def run(self) -> None:
        """Work until `departure` is wanted and the server has confirmed the goodbye.

        Raises Fatal if no attempt can succeed, LeftWithoutGoodbye if it is urgent to leave and no
        server answers.
        """
        backoff = Backoff(self._settings, self._rng)
        sent_tails = SentTails()
        while True:
            try:
                await self._connect(sent_tails)
            except StreamUsedUp:
                self._token.accepted()
                backoff.succeeded()
                _log.info("stream.used_up")
            except StreamEnded as ended:
                if await self._has_token_after(ended):
                    continue
                wait_seconds = backoff.wait_seconds(ended)
                self.last_error = ended
                reason = self._reason_of(ended)
                if self._is_last(ended, wait_seconds):
                    raise LeftWithoutGoodbye(reason) from None
                _log.warning(
                    "stream.ended",
                    code=ended.code.name,
                    reason=reason,
                    info=ended.info,
                    again_in_seconds=round(wait_seconds, 2),
                )
                await self._wait(ended, wait_seconds)
                if self._has_no_session_to_end(ended):
                    return
            else:
                return

    async def _has_token_after(self, ended: StreamEnded) -> bool:
        """Whether the server refused the token, and there is one now to dial with at once."""
        if ended.was_welcome:
            self._token.accepted()
        if ended.code is grpc.StatusCode.UNAUTHENTICATED and not ended.is_from_the_server:
            # A proxy may check tokens itself. Its answer is not final, but a rotation may be why.
            if changed := self._token.take_another():
                _log.info("token.changed")
            return changed
        if not (ended.is_refused_token and self._token.may_change):
            return False
        _log.warning("token.refused", reason=ended.reason)
        result = await self._token.changed(self.departure)
        if result is Wait.CHANGED:
            _log.info("token.changed")
        return result is not Wait.GIVE_UP

    def _reason_of(self, ended: StreamEnded) -> str:
        if ended.failure is None:
            return ended.reason
        return f"{self._server.address}: {ended.failure.in_words(self._server.tls)}"

    def _is_last(self, ended: StreamEnded, wait_seconds: float) -> bool:
        """Whether the agent leaves now: no server answered, or it said to come back too late."""
        answered = ended.was_welcome or ended.is_from_the_server
        is_in_time = wait_seconds < self._settings.goodbye_timeout_seconds
        return self.departure.is_urgent and not (
            self._has_no_session_to_end(ended) or (answered and is_in_time)
        )

    def _has_no_session_to_end(self, ended: StreamEnded) -> bool:
        """Whether the agent leaves while another one has the session: a goodbye would end that."""
        return self.departure.is_wanted and ended.info == "SESSION_SUPERSEDED"

    async def _wait(self, ended: StreamEnded, seconds: float) -> None:
        """Wait; only until the agent is to leave, so that its last attempt is made at once."""
        if self._has_no_session_to_end(ended):
            return
        if self.departure.is_urgent:
            await asyncio.sleep(seconds)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.departure.changed()

    async def _connect(self, sent_tails: SentTails) -> None:
        try:
            opened = open_channel(self._server.address, self._settings, self._server.tls)
        except UnusableTls as error:  # usable at the start: they are being renewed
            raise StreamEnded(grpc.StatusCode.UNAVAILABLE, str(error)) from None
        async with opened as channel:
            with self._tracing.span("session", root=True) as traceparent:
                metadata = [("authorization", f"Bearer {self._token.value}")]
                if traceparent:
                    metadata.append(("traceparent", traceparent))
                session = Session(
                    TaskAgentsStub(channel).Connect(None, metadata=tuple(metadata)),
                    self._source,
                    self.departure,
                    sent_tails,
                    self._settings,
                    self._tracing,
                    self._stream_limit,
                )
                await session.run(self._build_number)
