"""The streams of a follow: opens one, reads it, and opens the next when it breaks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeAlias

import grpc
import grpc.aio

from tasklogs.client.assembly import Assembly, WrongDelta
from tasklogs.client.backoff import Backoff, ReconnectWaits
from tasklogs.client.credentials import Credentials
from tasklogs.client.events import FollowEvent, Progress, Reconnected, Reconnecting
from tasklogs.client.retry import may_pass
from tasklogs.connection.library_log import LOG
from tasklogs.errors import (
    ClientClosed,
    DeadlineExceeded,
    LimitExceeded,
    StreamInconsistent,
    TaskLogsRpcError,
    TaskStateConflict,
    TokenUnavailable,
    Unauthenticated,
    Unavailable,
    parsed_rpc_errors,
    readable,
)
from tasklogs.v1 import task_logs_pb2

Response: TypeAlias = task_logs_pb2.FollowTaskLogsResponse
Stream: TypeAlias = grpc.aio.UnaryStreamCall[task_logs_pb2.FollowTaskLogsRequest, Response]
FollowMethod: TypeAlias = grpc.aio.UnaryStreamMultiCallable[
    task_logs_pb2.FollowTaskLogsRequest, Response
]
OnReconnect: TypeAlias = Callable[[Reconnecting | Reconnected], None]

_PASSING = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        # The codes of streams whose server or proxy died.
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)
"""Codes that do not end a running follow."""
_REFUSED_BY_A_PROXY = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
"""Codes that do not end it either, unless the server itself says them."""
_DEFAULT_PROGRESS_INTERVAL = timedelta(seconds=15)
_SILENCE_MARGIN = timedelta(seconds=10)
"""For the network, and for a server that is late because it is overloaded."""


def _silence_of(request: task_logs_pb2.FollowTaskLogsRequest) -> timedelta:
    """Return how long a stream may bring nothing."""
    if request.HasField("progress_interval"):
        return request.progress_interval.ToTimedelta() + _SILENCE_MARGIN
    return _DEFAULT_PROGRESS_INTERVAL + _SILENCE_MARGIN


class FollowStreams:
    """Yields the events of one follow, from as many streams as it needs. Nothing here is shared."""

    def __init__(
        self,
        method: FollowMethod,
        request: task_logs_pb2.FollowTaskLogsRequest,
        credentials: Credentials,
        waits: ReconnectWaits,
        *,
        require: Callable[[], Awaitable[None]],
        progress: bool,
        connect_timeout: timedelta | None,
        reconnect_timeout: timedelta | None,
        on_reconnect: OnReconnect | None,
    ) -> None:
        self._method = method
        self._request = request
        self._credentials = credentials
        self._backoff = Backoff(waits, random.Random())
        self._require: Callable[[], Awaitable[None]] | None = require
        """Raises if the server lacks what the request needs. Called once."""
        self._silence_seconds = _silence_of(request).total_seconds()
        self._progress = progress
        self._connect_timeout = connect_timeout
        self._reconnect_timeout = reconnect_timeout
        self._on_reconnect = on_reconnect
        self._assembly = Assembly()
        self.cursor: str | None = request.cursor or None
        """Of the last message whose event, if it has one, was taken."""
        self._stream: Stream | None = None
        self.messages = 0
        """How many messages the current stream has brought."""
        self._started = False
        """Whether any stream has brought a message."""
        self._broken = False
        """Whether the current or next stream continues one that broke."""
        self._closed = False
        self._resume_at = 0.0
        """The next stream is opened at this loop time or later."""
        self._connect_by: float | None = None
        self._broken_at: float | None = None
        """When the last stream broke that could continue the log."""
        self._last_error: TaskLogsRpcError | None = None
        self._token_refused = False
        self._whole_entries = False
        self._snapshot_only = False

    async def next_event(self) -> FollowEvent:
        """Return the next event. If it is cancelled, or raises, the stream is closed."""
        if self._connect_by is None:
            self._connect_by = _after(self._connect_timeout)
        try:
            while True:
                event = await self._within_limits()
                if event is not None:
                    return event
                self.cursor = self._assembly.cursor or self.cursor
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the current stream. Call it in the event loop of the stream."""
        self._closed = True
        self._drop_stream()

    async def _within_limits(self) -> FollowEvent | None:
        give_up_at = self._give_up_at()
        if give_up_at is None:
            return await self._next_of_stream()
        try:
            async with asyncio.timeout_at(give_up_at) as limit:
                return await self._next_of_stream()
        except TimeoutError:
            if not limit.expired():
                raise
            raise self._last_error or DeadlineExceeded(
                code=grpc.StatusCode.DEADLINE_EXCEEDED,
                message="no response within connect_timeout",
            ) from None

    def _give_up_at(self) -> float | None:
        """Return the loop time at which there must be a stream again; None: at any time."""
        if not self._started:
            return self._connect_by
        if not self._broken or self._broken_at is None or self._reconnect_timeout is None:
            return None
        return self._broken_at + self._reconnect_timeout.total_seconds()

    async def _next_of_stream(self) -> FollowEvent | None:
        try:
            if self._stream is None:
                self._stream = await self._opened()
            event = self._assembly.apply(await self._read(self._stream))
        except WrongDelta as wrong:
            # The rest of this stream may be wrong as well.
            self._prepare_retry(
                StreamInconsistent(code=grpc.StatusCode.INTERNAL, message=str(wrong))
            )
            return None
        except TaskLogsRpcError as error:
            self._prepare_retry(error)
            return None
        if isinstance(event, Progress) and not self._progress:
            return None
        return event

    async def _opened(self) -> Stream:
        await asyncio.sleep(max(0.0, self._resume_at - asyncio.get_running_loop().time()))
        if self._require is not None:
            await self._require()
            self._require = None
        metadata = await self._metadata()
        if self._closed:  # the function for the token may have ignored its cancellation
            raise asyncio.CancelledError
        request = task_logs_pb2.FollowTaskLogsRequest()
        request.CopyFrom(self._request)
        if self._assembly.cursor is not None:
            request.ClearField("tail")
            request.cursor = self._assembly.cursor
        if self._whole_entries:
            request.deltas = request.compressed = False
        if self._snapshot_only:
            request.source = task_logs_pb2.LOG_SOURCE_SNAPSHOT
        self._assembly.stream_opened()
        self.messages = 0
        try:
            # Each attempt fails at once and says why, so that the reader can be told.
            return self._method(request, metadata=metadata, wait_for_ready=False)
        except grpc.aio.UsageError:  # the owner of the channel has closed it
            raise ClientClosed from None

    async def _metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        try:
            return await self._credentials.metadata()
        except Exception as error:
            if not self._started:
                raise
            # What the exception says may hold the token.
            raise TokenUnavailable(
                code=grpc.StatusCode.UNAUTHENTICATED,
                message=f"the function for the token raised {type(error).__name__}",
            ) from error

    async def _read(self, stream: Stream) -> Response:
        # Keepalive tests the connection to the next proxy. This tests the way to the server, once
        # the stream has shown that there is one.
        silence = asyncio.timeout(self._silence_seconds if self.messages else None)
        try:
            with parsed_rpc_errors():
                async with silence:
                    message: object = readable(await stream.read())
        except TimeoutError:
            if not silence.expired():
                raise
            what = f"the stream brought nothing for {self._silence_seconds:g} s"
            raise Unavailable(code=grpc.StatusCode.UNAVAILABLE, message=what) from None
        # At the end it is EOF, which the stubs' types leave out.
        if not isinstance(message, Response):
            raise Unavailable(
                code=grpc.StatusCode.UNAVAILABLE, message="the server ended the stream"
            )
        self.messages += 1
        # The first message, the status, shows that the server responds, not that it can continue.
        if self.messages > 1:
            self._backoff.reset()
            self._broken_at = None
        else:
            self._token_refused = False
            self._started = True
            if self._broken:
                self._tell(Reconnected())
            self._broken = False
        return message

    def _prepare_retry(self, error: TaskLogsRpcError) -> None:
        """Decide when and how the next stream is opened. Raises `error` if there will be none."""
        self._drop_stream()
        if not self._may_go_on(error):
            raise error
        # The next stream sends whole entries as they are: nothing that could fail again.
        self._whole_entries = isinstance(error, StreamInconsistent)
        # The status does not allow a new follow, but does not end a running one either. To its
        # reader this follow is running, so it continues from the store.
        self._snapshot_only = isinstance(error, TaskStateConflict)
        now = asyncio.get_running_loop().time()
        self._broken, self._last_error = True, error
        self._broken_at = now if self._broken_at is None else self._broken_at
        delay = self._backoff.next_wait(error.retry_after)
        self._resume_at = now + delay.total_seconds()
        give_up_at = self._give_up_at()
        if give_up_at is not None and self._resume_at >= give_up_at:
            raise error  # no other attempt is left
        self._tell(Reconnecting(error=error, attempt=self._backoff.failures, delay=delay))

    def _tell(self, what: Reconnecting | Reconnected) -> None:
        if isinstance(what, Reconnecting):
            LOG.warning(
                "follow of %s: %s; attempt %d in %.1f s",
                self._request.task,
                what.error,
                what.attempt,
                what.delay.total_seconds(),
            )
        else:
            LOG.info("follow of %s: reconnected", self._request.task)
        if self._on_reconnect is not None:
            self._on_reconnect(what)

    def _may_go_on(self, error: TaskLogsRpcError) -> bool:
        if self._started and _is_from_a_proxy(error):
            return True
        match error:
            case TokenUnavailable():
                return True
            case Unauthenticated():
                asked_before, self._token_refused = self._token_refused, True
                return self._credentials.can_refresh and not asked_before
            case _ if not self._started:
                # Only a caller that waits without a limit waits for a server to be set up right.
                return may_pass(error) or (self._connect_timeout is None and _is_unreached(error))
            case TaskStateConflict():
                return not self._snapshot_only or self.messages > 0
            case LimitExceeded():
                return error.retry_after is not None
            case _:
                return error.code in _PASSING

    def _drop_stream(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None


def _after(length: timedelta | None) -> float | None:
    return None if length is None else asyncio.get_running_loop().time() + length.total_seconds()


def _is_unreached(error: TaskLogsRpcError) -> bool:
    return error.code is grpc.StatusCode.UNAVAILABLE and error.reason is None


def _is_from_a_proxy(error: TaskLogsRpcError) -> bool:
    if error.is_from_the_server:
        return False
    return error.http_status is not None or error.code in _REFUSED_BY_A_PROXY
