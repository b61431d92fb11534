"""Calls whose caller set no deadline get one: who waits for ever holds a place for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import grpc

from tasklogs_server.domain.caller import Caller
from tasklogs_server.domain.errors import TookTooLong

Handler = Callable[..., Any]


def within(limit: timedelta, inner: Handler) -> Handler:
    """Return a handler of unary calls that raises TookTooLong past `limit`.

    The caller's own deadline is gRPC's to keep.
    """

    async def handle(
        request: Any, context: grpc.aio.ServicerContext[Any, Any], caller: Caller | None
    ) -> Any:
        # The stubs leave out that a caller may have none.
        if cast("float | None", context.time_remaining()) is not None:
            return await inner(request, context, caller)
        deadline = asyncio.timeout(limit.total_seconds())
        try:
            async with deadline:
                return await inner(request, context, caller)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise TookTooLong(limit) from None

    return handle
