"""What agent streams want of a store that has too much to do: they wait, as for a slow commit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tasklogs_server.domain.errors import StoreBusy

T = TypeVar("T")


async def once_it_has_time(work: Callable[[], Awaitable[T]]) -> T:
    """Return what `work` returns, which is tried again as long as its turn does not come.

    The stream is read no further meanwhile. To end it would cost the store a handshake more.
    """
    while True:
        try:
            return await work()
        except StoreBusy as busy:
            await asyncio.sleep(busy.retry_after.total_seconds())
