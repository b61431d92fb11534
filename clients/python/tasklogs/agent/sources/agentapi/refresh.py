"""Reads the whole conversation: one fetch at a time, shared by all callers before it began."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.agentapi.answer import Answer
from tasklogs.agent.sources.agentapi.faults import Fault, TaskAppError

Accept = Callable[[Answer], bool]
"""Receives a list; returns False if it is not enough and one from `/messages` is needed."""


class Refresher:
    """Runs the fetches. A caller of `fresh` gets one that began after its call.

    A fetch that nobody waits for (a status changed) is cancelled when a caller comes: it may hang
    in a blocked `/messages`, and the caller would wait for `fetch_fallback_seconds` twice.
    """

    def __init__(
        self,
        messages: Callable[[], Coroutine[None, None, Answer]],
        burst: Callable[[], Coroutine[None, None, Answer]],
        settings: Settings,
        *,
        begin: Callable[[], None],
        accept: Accept,
        failed: Callable[[TaskAppError], None],
    ) -> None:
        """`begin` is called when a fetch begins, `accept` with a list, `failed` with an error."""
        self._messages = messages
        self._burst = burst
        self._settings = settings
        self._begin = begin
        self._accept = accept
        self._failed = failed
        self._waiting: list[asyncio.Future[None]] = []
        self._wanted = False
        self._wake = asyncio.Event()
        self._idle_fetch: asyncio.Task[None] | None = None
        self._is_fetching = False

    @property
    def is_fetching(self) -> bool:
        """Whether a fetch is under way."""
        return self._is_fetching

    def want(self) -> None:
        """Ask for a fetch without waiting for it."""
        self._wanted = True
        self._wake.set()

    async def fresh(self) -> None:
        """Wait for a fetch that begins after this call. Raises TaskAppError."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self._wake.set()
        if self._idle_fetch is not None:
            self._idle_fetch.cancel()
        await done

    async def run(self) -> None:
        """Fetch whenever asked, until cancelled."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                waiting, self._waiting = self._waiting, []
                if waiting or self._wanted:
                    self._wanted = False
                    await self._serve(waiting)
        finally:
            for done in self._waiting:
                done.cancel()

    async def _serve(self, waiting: list[asyncio.Future[None]]) -> None:
        fetch = asyncio.create_task(self._fetch())
        try:
            if not waiting:
                self._idle_fetch = fetch
            await asyncio.wait({fetch})
        finally:
            self._idle_fetch = None
            if not fetch.done():
                fetch.cancel()
                await asyncio.wait({fetch})
                for done in waiting:
                    done.cancel()
        if fetch.cancelled():
            return  # another fetch took its place
        error = fetch.exception()
        for done in waiting:
            if done.done():
                continue  # the caller was cancelled
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)
        if error is not None:
            if not isinstance(error, TaskAppError):
                raise error
            self._failed(error)

    async def _fetch(self) -> None:
        self._begin()
        self._is_fetching = True
        try:
            async with asyncio.timeout(self._settings.sync_timeout_seconds):
                await self._first_that_will_do()
        except TimeoutError:
            seconds = self._settings.sync_timeout_seconds
            raise TaskAppError(Fault.TIMEOUT, f"no response within {seconds:g} s") from None
        finally:
            self._is_fetching = False

    async def _first_that_will_do(self) -> None:
        messages = asyncio.create_task(self._messages())
        burst: asyncio.Task[Answer] | None = None
        try:
            await asyncio.wait({messages}, timeout=self._settings.fetch_fallback_seconds)
            if not messages.done():
                burst = asyncio.create_task(self._burst())
                await asyncio.wait({messages, burst}, return_when=asyncio.FIRST_COMPLETED)
                if (
                    not messages.done()
                    and burst.exception() is None
                    and self._accept(burst.result())
                ):
                    return
            self._accept(await messages)
        finally:
            tasks = {messages} if burst is None else {messages, burst}
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                _ = task.cancelled() or task.exception()  # retrieved: asyncio reports others
