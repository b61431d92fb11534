"""Requests that are on their way: whoever takes too long over one is cut off.

gRPC takes a call for begun when its headers are there, and waits for its message for ever.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, TypeAlias

import grpc

from tasklogs_server.domain.errors import FieldViolation, InvalidFields, RequestTooSlow

_Call: TypeAlias = "asyncio.Task[Any]"


class Arrivals:
    """The calls whose request has not come yet, and since when."""

    def __init__(self, within: timedelta) -> None:
        self._within = within
        self._waiting: dict[_Call, float] = {}

    async def message(self, call: _Call, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        """Wait for the one message of a call. Raises RequestTooSlow, InvalidFields."""
        self._waiting[call] = call.get_loop().time()
        try:
            raw: Any = await context.read()
        except asyncio.CancelledError:
            if call in self._waiting:
                raise  # the caller left, or the server does
            call.uncancel()
            raise RequestTooSlow(self._within) from None
        finally:
            self._waiting.pop(call, None)
        if raw is grpc.aio.EOF:
            raise InvalidFields([FieldViolation("request", "is missing")])
        return bytes(raw)

    async def cut_off(self) -> None:
        """End the waiting of those who take too long, until cancelled."""
        limit = self._within.total_seconds()
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(limit / 4)
            now = loop.time()
            for call, since in list(self._waiting.items()):
                if now - since > limit:
                    del self._waiting[call]
                    call.cancel()
