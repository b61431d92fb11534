"""Waiting for what another party brings about, with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

DEADLINE_SECONDS = 15.0
_POLL_SECONDS = 0.02


async def until(
    condition: Callable[[], Awaitable[bool]], *, seconds: float = DEADLINE_SECONDS
) -> None:
    """Ask until `condition` holds. Raises TimeoutError past the deadline."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - what is asked is a server, it has no event
            await asyncio.sleep(_POLL_SECONDS)
