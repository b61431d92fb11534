"""The whole agent: watches the task app, keeps a session open, leaves when asked to."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
import structlog

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.agentapi.client import TaskApp
from tasklogs.agent.sources.agentapi.watch import Watch
from tasklogs.connection.tls import Tls, UnusableTls
from tasklogs.publish.channel import open_channel
from tasklogs.publish.departure import Departure
from tasklogs.publish.own_token import OwnToken, Wait
from tasklogs.publish.reconnect import Backoff, StreamEnded, StreamUsedUp
from tasklogs.publish.sent_tails import SentTails
from tasklogs.publish.session import Session
from tasklogs.publish.stream_limit import StreamLimit
from tasklogs.tracing.base import Tracing
from tasklogs.v1.task_agents_pb2_grpc import TaskAgentsStub

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """The agent's task app, task and server. `server` is HOST:PORT."""

    server: str
    token: str = field(repr=False)
    """The task's agent token."""
    agentapi_url: str = "http://localhost:3284"
    build_number: int | None = None
    tls: Tls | None = None
    """None: plain text."""
    read_token: Callable[[], str | None] | None = None
    """Reads the token again after it was rotated; None if it cannot be read again."""


class Agent:
    """The work of one agent process."""

    def __init__(
        self,
        options: Options,
        settings: Settings | None = None,
        *,
        tracing: Tracing | None = None,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._settings = settings or Settings()
        self._tracing = tracing or Tracing()
        self._rng = rng or random.Random()
        self._clock = clock
        self._stream_limit = StreamLimit(clock)
        self._token = OwnToken(
            options.token, options.read_token, settings=self._settings, rng=self._rng
        )
        self.departure = Departure()

    async def run(self) -> None:
        """Work until `departure` is wanted and the server has confirmed the goodbye.

        Raises Fatal if the agent cannot go on, TimeoutError if the goodbye was not confirmed in
        time.
        """
        app = TaskApp(self._options.agentapi_url, self._settings)
        watch = Watch(app, self._settings, self._clock)
        try:
            async with contextlib.AsyncExitStack() as stack:
                watching = asyncio.create_task(watch.run())
                stack.push_async_callback(_cancel, watching)
                serving = asyncio.create_task(self._serve(watch))
                stack.push_async_callback(_cancel, serving)
                limit = asyncio.create_task(self._time_to_leave())
                stack.push_async_callback(_cancel, limit)
                done, _ = await asyncio.wait(
                    {watching, serving, limit}, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    task.result()
        finally:
            await app.aclose()

    async def _time_to_leave(self) -> None:
        await self.departure.wanted()
        _log.info("agent.leaving", reason=self.departure.reason_name)
        await asyncio.sleep(self._settings.goodbye_timeout_seconds)
        raise TimeoutError("the server did not confirm the goodbye in time")

    async def _serve(self, watch: Watch) -> None:
        backoff = Backoff(self._settings, self._rng)
        sent_tails = SentTails()
        while True:
            try:
                await self._connect(watch, sent_tails)
            except StreamUsedUp:
                self._token.accepted()
                backoff.succeeded()
                _log.info("stream.used_up")
            except StreamEnded as ended:
                if await self._has_token_after(ended):
                    continue
                wait_seconds = backoff.wait_seconds(ended)
                reason = ended.reason
                if ended.failure is not None:
                    reason = f"{self._options.server}: {ended.failure.in_words(self._options.tls)}"
                _log.warning(
                    "stream.ended",
                    code=ended.code.name,
                    reason=reason,
                    info=ended.info,
                    again_in_seconds=round(wait_seconds, 2),
                )
                await self._wait(wait_seconds)
                if self.departure.is_wanted and ended.info == "SESSION_SUPERSEDED":
                    return  # another agent has the session: a goodbye would end it
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

    async def _wait(self, seconds: float) -> None:
        """Wait; only briefly once the agent is to leave, so that its goodbye is sent in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.departure.wanted()
        if self.departure.is_wanted:
            await asyncio.sleep(min(seconds, self._settings.backoff_first_seconds))

    async def _connect(self, watch: Watch, sent_tails: SentTails) -> None:
        try:
            opened = open_channel(self._options.server, self._settings, self._options.tls)
        except UnusableTls as error:  # usable at the start: they are being renewed
            raise StreamEnded(grpc.StatusCode.UNAVAILABLE, str(error)) from None
        async with opened as channel:
            with self._tracing.span("session", root=True) as traceparent:
                metadata = [("authorization", f"Bearer {self._token.value}")]
                if traceparent:
                    metadata.append(("traceparent", traceparent))
                session = Session(
                    TaskAgentsStub(channel).Connect(None, metadata=tuple(metadata)),
                    watch,
                    self.departure,
                    sent_tails,
                    self._settings,
                    self._tracing,
                    self._stream_limit,
                )
                await session.run(self._options.build_number)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # retrieved, so that asyncio does not report it
