"""How long a handler may run: unary calls have a default deadline, streams end with the token."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from tasklogs_server.domain.caller import Caller, User
from tasklogs_server.domain.errors import TokenExpired, TookTooLong
from tasklogs_server.middleware.handlers import Context, Handler

T = TypeVar("T")


async def within(limit: timedelta, answering: Awaitable[T]) -> T:
    """Await a handler whose caller set no deadline. Raises TookTooLong after `limit`.

    Without it, a caller that waits indefinitely occupies a slot indefinitely. gRPC enforces the
    deadlines that callers set.
    """
    deadline = asyncio.timeout(limit.total_seconds())
    try:
        async with deadline:
            return await answering
    except TimeoutError:
        if not deadline.expired():
            raise
        raise TookTooLong(limit) from None


def until_the_token_expires(function: Handler) -> Handler:
    """Return a stream's handler that raises TokenExpired when the caller's token expires."""

    async def handle(request: Any, context: Context, caller: Caller | None) -> None:
        if not isinstance(caller, User) or caller.expires_at is None:
            await function(request, context, caller)
            return
        left = caller.expires_at - datetime.now(UTC)
        limit = asyncio.timeout(left.total_seconds())
        try:
            async with limit:
                await function(request, context, caller)
        except TimeoutError:
            if not limit.expired():
                raise
            raise TokenExpired from None

    return handle
