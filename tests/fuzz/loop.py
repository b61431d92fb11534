"""The event loop of a target whose decoder is asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")

_SOON_SECONDS = 2.0


class Loop:
    """Runs coroutines one after the other. What they leave behind is a finding."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.new_event_loop()
        self._loop.set_exception_handler(self._note)
        self._unhandled: list[dict[str, Any]] = []

    def run(self, awaitable: Awaitable[T]) -> T:
        """Return what comes of it.

        Raises AssertionError where a task is left, or an error that nobody took.
        """
        result = self._loop.run_until_complete(_awaited(awaitable))
        if asyncio.all_tasks(self._loop):
            # Generators that a library abandoned are closed by tasks of the loop's own.
            self._loop.run_until_complete(self._end_of_others())
        unhandled, self._unhandled = self._unhandled, []
        assert not unhandled, f"errors that nobody took: {unhandled}"
        return result

    def close(self) -> None:
        self._loop.close()

    async def _end_of_others(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if not others:  # ended while this one began
            return
        _, endless = await asyncio.wait(others, timeout=_SOON_SECONDS)
        for task in endless:
            task.cancel()
        assert not endless, f"tasks that nobody waits for: {endless}"

    def _note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._unhandled.append(context)


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable
