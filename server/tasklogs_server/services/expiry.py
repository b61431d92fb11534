"""A stream ends when what let its caller in ends to hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from tasklogs_server.domain.caller import User
from tasklogs_server.domain.errors import Unauthenticated


@asynccontextmanager
async def ends_with_the_token(caller: User) -> AsyncIterator[None]:
    """End the block with Unauthenticated when the caller's token expires."""
    if caller.expires_at is None:
        yield
        return
    left = caller.expires_at - datetime.now(UTC)
    limit = asyncio.timeout(left.total_seconds())
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise Unauthenticated("token expired") from None
