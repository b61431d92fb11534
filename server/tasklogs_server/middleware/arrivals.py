"""Requests that are on their way: whoever takes too long over one is cut off.

gRPC takes a call for begun when its headers are there, and waits for its message for ever. What
has come of it is held meanwhile: as many bytes as a message may have, a stranger's too.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import islice, takewhile
from typing import Any, TypeAlias

import grpc

from tasklogs_server.concurrency.stall_free_clock import Attention
from tasklogs_server.domain.errors import FieldViolation, InvalidFields, RequestTooSlow

_Call: TypeAlias = "asyncio.Task[Any]"

# Beyond so many, those who wait for longer than this are cut off already, the longest first. Most
# requests come with their headers; a large one on a slow line has time while there is room.
_MANY = 128
_SLOW_SECONDS = 2.0
# A thousand that are told so in one go keep everybody waiting.
_AT_ONCE = 20
_BETWEEN_SECONDS = 0.01


class Arrivals:
    """The calls whose request has not come yet, and since when."""

    def __init__(self, within: timedelta) -> None:
        self._within = within.total_seconds()
        self._time = Attention(self._within)
        self._waiting: dict[_Call, float] = {}

    async def message(self, call: _Call, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        """Wait for the one message of a call. Raises RequestTooSlow, InvalidFields."""
        began = self._waiting[call] = self._time.now()
        try:
            raw: Any = await context.read()
        except asyncio.CancelledError:
            if call in self._waiting:
                raise  # the caller left, or the server does
            call.uncancel()
            waited = round(self._time.now() - began, 1)
            raise RequestTooSlow(timedelta(seconds=waited)) from None
        finally:
            self._waiting.pop(call, None)
        if raw is grpc.aio.EOF:
            raise InvalidFields([FieldViolation("request", "is missing")])
        return bytes(raw)

    async def cut_off(self) -> None:
        """End the waiting of those who take too long, until cancelled."""
        while True:
            now = await self._time.next_look()
            await self._cut_off(now - self._within, leave=0)
            await self._cut_off(now - _SLOW_SECONDS, leave=_MANY)

    async def _cut_off(self, since_before: float, *, leave: int) -> None:
        while len(self._waiting) > leave:
            early = takewhile(lambda item: item[1] < since_before, self._waiting.items())
            calls = [call for call, _ in islice(early, min(_AT_ONCE, len(self._waiting) - leave))]
            if not calls:
                return
            for call in calls:
                del self._waiting[call]
                call.cancel()
            await asyncio.sleep(_BETWEEN_SECONDS)
