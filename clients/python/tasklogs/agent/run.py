"""The whole agent: reads its source, keeps a session open, leaves when asked to."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.options import DEFAULT_AGENTAPI_URL, SourceOptions
from tasklogs.agent.sources.table import open_source
from tasklogs.connection.tls import Tls
from tasklogs.publish.carrier import Carrier, ServerPlace
from tasklogs.publish.departure import Departure, LeftWithoutGoodbye
from tasklogs.publish.event_log import EventLog
from tasklogs.publish.own_token import OwnToken
from tasklogs.tracing.base import Tracing
from tasklogs.v1.task_agents_pb2 import Goodbye

_log = EventLog()


@dataclass(frozen=True, slots=True)
class Options:
    """The agent's source, task and server. `server` is HOST:PORT."""

    server: str
    token: str = field(repr=False)
    """The task's agent token."""
    agentapi_url: str = DEFAULT_AGENTAPI_URL
    build_number: int | None = None
    tls: Tls | None = None
    """None: plain text."""
    read_token: Callable[[], str | None] | None = None
    """Reads the token again after it was rotated; None if it cannot be read again."""
    source: str = "agentapi"
    transcript: Path | None = None
    redact: Sequence[str] = ()
    thoughts: bool = False

    @property
    def of_source(self) -> SourceOptions:
        """What concerns the source."""
        return SourceOptions(
            self.source, self.agentapi_url, self.transcript, self.redact, thoughts=self.thoughts
        )


class Agent:
    """The work of one agent process. Raises UnusableSource."""

    def __init__(
        self,
        options: Options,
        settings: Settings | None = None,
        *,
        tracing: Tracing | None = None,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings or Settings()
        self.departure = Departure()
        self.source = open_source(options.of_source, self._settings, clock)
        rng = rng or random.Random()
        self._carrier = Carrier(
            ServerPlace(options.server, options.tls),
            OwnToken(options.token, options.read_token, settings=self._settings, rng=rng),
            self.source.feed,
            self.departure,
            self._settings,
            build_number=options.build_number,
            tracing=tracing,
            rng=rng,
            clock=clock,
        )

    async def run(self) -> None:
        """Work until `departure` is wanted and the server has confirmed the goodbye.

        Raises Fatal if the agent cannot go on, LeftWithoutGoodbye if no server answered once the
        agent was to leave, or if none confirmed the goodbye in time.
        """
        try:
            async with contextlib.AsyncExitStack() as stack:
                reading = asyncio.create_task(self._read())
                stack.push_async_callback(_cancel, reading)
                carrying = asyncio.create_task(self._carrier.run())
                stack.push_async_callback(_cancel, carrying)
                limit = asyncio.create_task(self._time_to_leave())
                stack.push_async_callback(_cancel, limit)
                done, _ = await asyncio.wait(
                    {reading, carrying, limit}, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    task.result()
        finally:
            await self.source.aclose()

    async def _read(self) -> None:
        await self.source.run()
        _log.info("source.ended")
        self.departure.want(Goodbye.REASON_PAUSING, is_urgent=False)
        await asyncio.Event().wait()  # the session says goodbye

    async def _time_to_leave(self) -> None:
        await self.departure.wanted()
        _log.info("agent.leaving", reason=self.departure.reason_name)
        await asyncio.sleep(self._settings.goodbye_timeout_seconds)
        raise LeftWithoutGoodbye("the server did not confirm the goodbye in time")


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # retrieved, so that asyncio does not report it
