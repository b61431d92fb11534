"""A stream ends when what let its caller in ends to hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from tasklogs_server.domain.caller import Caller, User
from tasklogs_server.domain.errors import Unauthenticated


@asynccontextmanager
async def ends_with_the_token(caller: Caller | None) -> AsyncIterator[None]:
    """End the block with Unauthenticated when the caller's token expires; an agent's never does."""
    if not isinstance(caller, User) or caller.expires_at is None:
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


def until_the_token_ends(inner: Callable[..., Any]) -> Callable[..., Any]:
    """Return a handler that yields what `inner`, which knows of no caller, does until then."""

    async def handle(request: Any, context: Any, caller: Caller | None) -> AsyncIterator[Any]:
        async with ends_with_the_token(caller), aclosing(inner(request, context)) as responses:
            async for response in responses:
                yield response

    return handle
