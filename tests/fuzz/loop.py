"""The event loop of a target whose decoder is asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")


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
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.wait(left))
        assert not left, f"tasks that nobody waits for: {left}"
        unhandled, self._unhandled = self._unhandled, []
        assert not unhandled, f"errors that nobody took: {unhandled}"
        return result

    def close(self) -> None:
        self._loop.close()

    def _note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._unhandled.append(context)


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable
