"""Retries work of an agent stream while the store is busy."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tasklogs_server.domain.errors import StoreBusy

T = TypeVar("T")


async def retry_when_busy(work: Callable[[], Awaitable[T]]) -> T:
    """Return what `work` returns. Try it again as long as it raises StoreBusy.

    The stream is not read meanwhile. Ending the stream instead would cost the store another
    handshake.
    """
    while True:
        try:
            return await work()
        except StoreBusy as busy:
            await asyncio.sleep(busy.retry_after.total_seconds())
