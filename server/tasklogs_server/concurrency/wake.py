"""An event that one coroutine waits for, again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Protocol


class Settable(Protocol):
    """What can wake a waiter: a Wake, or an asyncio.Event."""

    def set(self) -> None:
        """Wake the waiter, or let its next wait end at once."""


class Wake:
    """Like asyncio.Event, with one waiter at a time.

    Hundreds of followers wait for each change: asyncio.Event takes a coroutine, a queue and a look
    for the loop for each wait.
    """

    __slots__ = ("_is_set", "_loop", "_waiter")

    def __init__(self) -> None:
        """Call it while the waiter's event loop runs."""
        self._loop = asyncio.get_running_loop()
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Wake the waiter. Every wait ends at once until `clear`."""
        self._is_set = True
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def clear(self) -> None:
        """Let the next wait last until the next `set`."""
        self._is_set = False

    def wait(self) -> Awaitable[None]:
        """Return what ends with the next `set`, or has ended if there was one since `clear`."""
        self._waiter = waiter = self._loop.create_future()
        if self._is_set:
            waiter.set_result(None)
        return waiter
