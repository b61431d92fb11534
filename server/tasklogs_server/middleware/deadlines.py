"""How long a handler may run: unary calls have a default deadline, streams end with the token."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from tasklogs_server.domain.caller import Caller, User
from tasklogs_server.domain.errors import TokenExpired, TookTooLong
from tasklogs_server.middleware.handlers import Call, Context, Handler

T = TypeVar("T")


class DefaultDeadline:
    """Ends the handlers of calls whose caller set no deadline, after a limited time.

    Without it, a caller that waits indefinitely occupies a slot indefinitely. gRPC enforces the
    deadlines that callers set.

    All calls share one timer. `asyncio.timeout` sets one for each, and cost a third of what the
    middleware did for a small read.
    """

    def __init__(self, limit: timedelta) -> None:
        """`limit`: of each call."""
        self._limit = limit
        self._limit_seconds = limit.total_seconds()
        self._due: dict[Call, float] = {}
        """When each call ends, by the loop's clock. The first one ends first."""
        self._timer: asyncio.TimerHandle | None = None

    async def within(self, call: Call, answering: Awaitable[T]) -> T:
        """Await a handler in `call`, which is the current task. Raises TookTooLong."""
        loop = asyncio.get_running_loop()
        due = self._due[call] = loop.time() + self._limit_seconds
        if self._timer is None:
            self._timer = loop.call_at(due, self._end_calls, loop)
        try:
            return await answering
        except asyncio.CancelledError:
            # Or the caller left, or the server stops: perhaps at the same time.
            if call in self._due or call.cancelling() > 1:
                raise
            raise TookTooLong(self._limit) from None
        finally:
            if self._due.pop(call, None) is None:
                call.uncancel()

    def _end_calls(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the calls whose time is over, and look again when that of the next one is."""
        self._timer = None
        now = loop.time()
        while self._due:
            call, due = next(iter(self._due.items()))
            if due > now:
                self._timer = loop.call_at(due, self._end_calls, loop)
                return
            del self._due[call]
            call.cancel()


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
