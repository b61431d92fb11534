"""Time limits on answers. Time in which this process was stalled does not count.

By the wall clock an answer is late that has arrived, if this process was too busy to read it. So
these limits count looks, 50 ms apart, and a look that is late counts as one. Between two looks the
loop has at least one turn, in which it reads what has arrived. Some answers, like that to a
connect, need a dozen turns.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

_LOOK_SECONDS = 0.05


async def is_done_within(seconds: float, work: asyncio.Future[Any]) -> bool:
    """Wait for `work`, and return whether it was done in time. It goes on if it was not."""
    for _ in range(_looks(seconds)):
        await asyncio.wait({work}, timeout=_LOOK_SECONDS)
        if work.done():
            return True
    return False


@asynccontextmanager
async def stall_free_timeout(seconds: float) -> AsyncIterator[None]:
    """Cancel the block, and raise TimeoutError, if it takes longer."""
    loop = asyncio.get_running_loop()
    limit = asyncio.timeout(None)
    next_look: asyncio.TimerHandle

    def look(left: int) -> None:
        nonlocal next_look
        if left == 0:
            limit.reschedule(loop.time())
        else:
            next_look = loop.call_later(_LOOK_SECONDS, look, left - 1)

    async with limit:
        look(_looks(seconds))
        try:
            yield
        finally:
            next_look.cancel()


def _looks(seconds: float) -> int:
    return max(1, math.ceil(seconds / _LOOK_SECONDS))
