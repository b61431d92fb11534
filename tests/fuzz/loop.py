"""The event loop for a target whose decoder is asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")

_SOON_SECONDS = 2.0


class Loop:
    """Runs coroutines one after the other. Anything that they leave running is a finding."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.new_event_loop()
        self._loop.set_exception_handler(self._note)
        self._unhandled: list[dict[str, Any]] = []

    def run(self, awaitable: Awaitable[T]) -> T:
        """Return the result.

        Raises AssertionError if a task is left or if nothing retrieved an error.
        """
        result = self._loop.run_until_complete(_awaited(awaitable))
        if asyncio.all_tasks(self._loop):
            # The loop closes generators that a library abandoned in tasks of its own.
            self._loop.run_until_complete(self._end_of_others())
        unhandled, self._unhandled = self._unhandled, []
        assert not unhandled, f"errors that nothing retrieved: {unhandled}"
        return result

    def close(self) -> None:
        self._loop.close()

    async def _end_of_others(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if not others:  # they ended while this task began
            return
        _, endless = await asyncio.wait(others, timeout=_SOON_SECONDS)
        for task in endless:
            task.cancel()
        assert not endless, f"tasks that nothing awaits: {endless}"

    def _note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._unhandled.append(context)


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable
