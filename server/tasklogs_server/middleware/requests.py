"""Requests: waiting for them, for a limited time, and decoding them.

They come in as bytes and are decoded here, not by gRPC. So a request that cannot be decoded fails
like every other call, and nothing is decoded for callers who may not call.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import islice, takewhile
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from tasklogs_server.concurrency.stall_free_clock import StallFreeClock
from tasklogs_server.domain.errors import FieldViolation, InvalidFields, RequestTooSlow
from tasklogs_server.middleware.handlers import Call, Context
from tasklogs_server.wire.fields import has_more_fields, undecodable

Deserialize = Callable[[bytes], Any]

# Most requests arrive with their headers. If more calls than this wait for a request, those that
# have waited longer than `_SLOW_SECONDS` are cut off, the longest wait first. A large request on a
# slow line has the whole time while there are fewer.
_MANY = 128
_SLOW_SECONDS = 2.0
# Callers without credentials send a few bytes, unless one peer begins many large requests.
_MANY_UNKNOWN = 8
_SLOW_UNKNOWN_SECONDS = 0.25
# To cut off a thousand calls in one go would delay all other calls.
_AT_ONCE = 20
_BETWEEN_SECONDS = 0.01


class RequestBodies:
    """The calls whose request has not arrived, and since when they wait.

    gRPC begins a call when its headers are there, and waits for the message without a limit.
    Meanwhile it holds what has arrived of it, up to the size limit of a message, for
    unauthenticated callers too.
    """

    def __init__(
        self, within: timedelta, *, stream_within: timedelta = timedelta(minutes=10)
    ) -> None:
        """`within`: how long one request may take; `stream_within`: all requests of a `stream`."""
        self._within = within.total_seconds()
        self._stream_within = stream_within
        self._clock = StallFreeClock(self._within)
        self._waiting: dict[Call, float] = {}
        self._unknown: dict[Call, float] = {}
        """Those of them whose callers have no credentials."""

    def stream(self, call: Call, context: Context, decode: Deserialize) -> BoundedStream:
        """Return the requests of a call that is answered after the last of them."""
        began, limit = self._clock.begin_at, self._stream_within

        async def read() -> Any:
            if self._clock.looked_at - began > limit.total_seconds():
                raise RequestTooSlow(limit)
            raw = await self.read(call, context)
            if raw is grpc.aio.EOF:
                raise StopAsyncIteration
            return decode(raw)

        return BoundedStream(read)

    async def read(self, call: Call, context: Context, *, is_known: bool = True) -> Any:
        """Return the next request as bytes, or EOF. Raises RequestTooSlow.

        `is_known`: the caller has credentials.
        """
        began = self._waiting[call] = self._clock.begin_at
        if not is_known:
            self._unknown[call] = began
        try:
            return await context.read()
        except asyncio.CancelledError:
            if call in self._waiting:
                raise  # the caller left, or the server stops
            call.uncancel()
            waited = round(self._clock.looked_at - began, 1)
            raise RequestTooSlow(timedelta(seconds=waited)) from None
        finally:
            self._waiting.pop(call, None)
            if not is_known:
                self._unknown.pop(call, None)

    async def cut_off(self) -> None:
        """End the waiting of those who take too long, until cancelled."""
        while True:
            now = await self._clock.next_look()
            await self._cut_off(self._waiting, now - self._within, leave=0)
            await self._cut_off(self._waiting, now - _SLOW_SECONDS, leave=_MANY)
            await self._cut_off(self._unknown, now - _SLOW_UNKNOWN_SECONDS, leave=_MANY_UNKNOWN)

    async def _cut_off(
        self, waiting: dict[Call, float], since_before: float, *, leave: int
    ) -> None:
        while len(waiting) > leave:
            early = takewhile(lambda item: item[1] < since_before, waiting.items())
            calls = [call for call, _ in islice(early, min(_AT_ONCE, len(waiting) - leave))]
            if not calls:
                return
            for call in calls:
                del self._waiting[call]
                self._unknown.pop(call, None)
                call.cancel()
            await asyncio.sleep(_BETWEEN_SECONDS)


class BoundedStream:
    """A stream of requests that must arrive in time.

    Nothing else ends a call whose caller stops sending before the last request. Raises
    RequestTooSlow if one request takes too long, or all of them together, and InvalidFields.
    """

    def __init__(self, read: Callable[[], Awaitable[Any]]) -> None:
        """`read` raises StopAsyncIteration after the last request."""
        self._read = read

    def __aiter__(self) -> BoundedStream:
        return self

    def __anext__(self) -> Awaitable[Any]:
        return self._read()


class DecodedStream:
    """A stream of requests; each is decoded when it is taken. Raises InvalidFields.

    It reads from the context: gRPC's own iterator keeps the last message, and itself, until the
    next garbage collection.
    """

    def __init__(self, context: Context, decode: Deserialize) -> None:
        """`decode`: see `decoder_of`."""
        self._context = context
        self._decode = decode

    def __aiter__(self) -> DecodedStream:
        return self

    async def __anext__(self) -> Any:
        raw = await self._context.read()
        if raw is grpc.aio.EOF:
            raise StopAsyncIteration
        return self._decode(raw)


def decoder_of(
    deserialize: Deserialize | None,
    *,
    limit_bytes: int | None = None,
    most_fields: int | None = None,
) -> Deserialize:
    """Return what decodes requests of at most `limit_bytes`, with at most `most_fields` fields.

    It raises InvalidFields for others, which it does not decode, and for what cannot be decoded.
    None: no limit. Without `deserialize` a request is returned as it is: its handler decodes it
    (`Method.is_decoded_by_handler`).
    """
    largest = math.inf if limit_bytes is None else limit_bytes

    def decode(raw: bytes) -> Any:
        if len(raw) > largest:
            what = f"must have at most {limit_bytes} bytes"
            raise InvalidFields([FieldViolation("request", what)])
        try:
            if most_fields is not None and has_more_fields(raw, most_fields):
                what = f"must have at most {most_fields} fields"
                raise InvalidFields([FieldViolation("request", what)])
            return raw if deserialize is None else deserialize(raw)
        except DecodeError:
            raise undecodable() from None

    return decode


def missing_request() -> InvalidFields:
    """Return what a unary call is refused with that has no request."""
    return InvalidFields([FieldViolation("request", "is missing")])
