"""The open calls, and how all of them end when the server stops.

grpc.aio's `stop` returns before the handlers' cleanup has run, and callers see the calls that it
ends as CANCELLED.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tasklogs_server.domain.errors import TaskLogsError
from tasklogs_server.limits.admission import Kind
from tasklogs_server.middleware.handlers import Call


class OpenCalls:
    """Calls of the API are refused, ended and waited for. Others, such as a health Watch, are not.

    The others are those of `Kind.OPERATIONS`.
    """

    def __init__(self) -> None:
        self._open: set[Call] = set()
        """Calls of the API until their response is sent or given up, which is their task's end."""
        self._handled: set[Call] = set()
        """Those of them whose handler runs."""
        self._others: set[Call] = set()
        self._refusal: Callable[[], TaskLogsError] | None = None
        self._refused_at = 0.0
        self._is_ending = False

    def begin(self, call: Call, kind: Kind) -> None:
        """Add a call; `finish` must follow. Raises what `refuse` was given."""
        if kind is Kind.OPERATIONS:
            self._others.add(call)
            return
        self._handled.add(call)
        self._open.add(call)
        call.add_done_callback(self._open.discard)
        if self._refusal is not None:
            self._refused_at = asyncio.get_running_loop().time()
            raise self._refusal()

    def finish(self, call: Call) -> None:
        """The call's handler has run to its end."""
        self._handled.discard(call)
        self._others.discard(call)

    def refuse(self, error: Callable[[], TaskLogsError]) -> None:
        """Answer each call of the API that comes from now on with a new `error`."""
        self._refusal = error

    def end(self) -> None:
        """End each call of the API that has no response yet with the error of `refuse`."""
        self._is_ending = True
        for call in self._handled:
            call.cancel()

    def end_of(self, call: Call) -> TaskLogsError | None:
        """Return the error that ends a cancelled call; None if its caller left."""
        if not self._is_ending or self._refusal is None:
            return None
        call.uncancel()
        return self._refusal()

    async def over(self) -> None:
        """Wait until no call of the API is open: each response is sent, or given up.

        Other calls are not waited for: an unread response to an unauthenticated caller must not
        delay a drain.
        """
        while self._open:
            await asyncio.wait(self._open)

    async def quiet(self, seconds: float) -> None:
        """Wait until no call was refused for `seconds`."""
        loop = asyncio.get_running_loop()
        while (left := self._refused_at + seconds - loop.time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left)

    async def finished(self) -> None:
        """Wait until the handlers of all calls have run to their end."""
        while calls := self._handled | self._others:
            await asyncio.wait(calls)
