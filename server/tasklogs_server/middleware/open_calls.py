"""The calls that are open, and how all of them come to an end when the server goes.

grpc.aio's `stop` returns before the handlers' cleanup has run, and what it cuts off reaches the
caller as CANCELLED.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

from tasklogs_server.domain.errors import TaskLogsError

_Call: TypeAlias = "asyncio.Task[Any]"


class OpenCalls:
    """Those of the API are refused, ended and waited for; others, a health Watch say, may stay."""

    def __init__(self) -> None:
        self._of_the_api: set[_Call] = set()
        """Until their answers are taken or given up: as long as gRPC's tasks for them run."""
        self._handled: set[_Call] = set()
        """Those of them whose handlers run."""
        self._others: set[_Call] = set()
        self._refusal: Callable[[], TaskLogsError] | None = None
        self._refused_at = 0.0
        self._ending = False

    def handling(self, *, is_of_the_api: bool) -> Handling:
        """The call of this task is handled as long as the block lasts; lends it."""
        if is_of_the_api:
            return Handling(self._handled, self._of_the_api)
        return Handling(self._others)

    def check(self) -> None:
        """Whether one more call of the API may begin. Raises what `refuse` was given."""
        if self._refusal is not None:
            self._refused_at = asyncio.get_running_loop().time()
            raise self._refusal()

    def refuse(self, error: Callable[[], TaskLogsError]) -> None:
        """Answer every call of the API that comes from now on with what `error` makes."""
        self._refusal = error

    def end(self) -> None:
        """End every call of the API that has no answer yet with what new ones are refused with."""
        self._ending = True
        for call in self._handled:
            call.cancel()

    def end_of(self, call: _Call) -> TaskLogsError | None:
        """Return what a call that was cancelled ends with; None where its caller left."""
        if not self._ending or self._refusal is None:
            return None
        call.uncancel()
        return self._refusal()

    async def over(self) -> None:
        """Wait until no call of the API is open: its answer is taken, or given up.

        Others are not waited for: strangers who take no answer must not hold up a drain.
        """
        while self._of_the_api:
            await asyncio.wait(self._of_the_api)

    async def quiet(self, seconds: float) -> None:
        """Wait until for so long no call came that was refused."""
        loop = asyncio.get_running_loop()
        while (left := self._refused_at + seconds - loop.time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left)

    async def finished(self) -> None:
        """Wait until the handlers of all calls have run to their end."""
        while calls := self._handled | self._others:
            await asyncio.wait(calls)


class Handling:
    """Keeps a call in one set as long as the block lasts, in another as long as its task does."""

    __slots__ = ("_call", "_handled", "_open")

    def __init__(self, handled: set[_Call], opened: set[_Call] | None = None) -> None:
        self._handled = handled
        self._open = opened

    def __enter__(self) -> _Call:
        call = asyncio.current_task()
        assert call is not None
        self._call = call
        self._handled.add(call)
        if self._open is not None:
            self._open.add(call)
            call.add_done_callback(self._open.discard)
        return call

    def __exit__(self, *_: object) -> None:
        # Perhaps of another task: of one that closes a generator whose call has ended.
        self._handled.remove(self._call)
