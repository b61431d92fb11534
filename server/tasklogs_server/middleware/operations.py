"""Streams of libraries' services: reflection, and watches of health.

Their handlers answer whatever comes, and wait for those who do not read. Here each request counts
as a call, and each message has its time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc

from tasklogs_server.domain.caller import Caller
from tasklogs_server.domain.errors import InvalidFields, LimitExceeded, RequestTooSlow
from tasklogs_server.domain.limits import Limit
from tasklogs_server.limits.caller_limits import CallerLimits
from tasklogs_server.middleware.handlers import Call, Context
from tasklogs_server.middleware.request_ids import StreamContext
from tasklogs_server.middleware.requests import Deserialize, RequestBodies
from tasklogs_server.middleware.responses import Responses, recipient_of

_RETRY_AFTER = timedelta(seconds=1)


class OperationStreams:
    """What a stream of a library's handler reads from, and writes to."""

    def __init__(self, limits: CallerLimits, bodies: RequestBodies, responses: Responses) -> None:
        self._limits = limits
        self._bodies = bodies
        self._responses = responses

    async def requests(
        self, call: Call, context: Context, caller: Caller | None, decode: Deserialize
    ) -> AsyncIterator[Any]:
        """Yield the requests of a stream of reflection.

        A caller who asks nothing more in time has had its answers: the stream ends. Raises
        LimitExceeded, RequestTooSlow if the first request does not arrive, and InvalidFields.
        """
        self._limits.count_reflection(caller)
        is_first = True
        while True:
            try:
                raw = await self._bodies.read(call, context)
            except RequestTooSlow:
                if is_first:
                    raise
                return
            if raw is grpc.aio.EOF:
                return
            # The first one came with the call, which is counted.
            if caller is not None and not is_first:
                self._limits.count_call(caller)
            is_first = False
            try:
                request = decode(raw)
            except InvalidFields:
                # It may be large.
                if caller is not None:
                    self._limits.count_bytes(caller, len(raw))
                raise
            yield request

    def context(self, call: Call, context: Context, caller: Caller | None) -> OperationContext:
        """Return the context that a handler writes to."""
        return OperationContext(context, call, caller, self._responses)


class OperationContext:
    """The context of a stream. A message that is not read in time ends the stream."""

    __slots__ = ("_call", "_context", "_is_late", "_is_user", "_responses", "_unread")

    def __init__(
        self, context: Context, call: Call, caller: Caller | None, responses: Responses
    ) -> None:
        self._context = StreamContext(context)
        self._call = call
        self._is_user = caller is not None
        self._responses = responses
        self._unread = responses.stream(call, recipient_of(caller, context), self._end)
        self._is_late = False

    async def write(self, message: Any) -> None:
        """Send a message. Raises LimitExceeded if a user leaves too much unread.

        Health is told to everyone: what other callers leave unread must not make it look bad.
        """
        unread, responses = self._unread, self._responses
        if self._is_user:
            responses.check(unread.recipient)
        responses.hold(unread, len(message) if isinstance(message, bytes) else message.ByteSize())
        responses.writes(self._call, unread)
        try:
            await self._context.write(message)
        except asyncio.CancelledError:
            if not self._is_late:
                raise
            self._call.uncancel()
            what = "a message of the stream was not read in time"
            raise LimitExceeded(Limit.ANSWER_TIMEOUT, "caller", what, _RETRY_AFTER) from None
        responses.wrote(self._call)
        responses.hold(unread, 0)

    def _end(self) -> None:
        self._is_late = True
        self._call.cancel()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)
