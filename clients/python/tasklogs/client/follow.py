"""One follow, over as many streams as it needs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from types import TracebackType
from typing import Self, TypeAlias

import grpc
import grpc.aio

from tasklogs.client.assembly import Assembly, WrongDelta
from tasklogs.client.backoff import Backoff, ReconnectWaits
from tasklogs.client.credentials import Credentials
from tasklogs.client.events import FollowEvent, Progress, Reconnected, Reconnecting
from tasklogs.errors import (
    DeadlineExceeded,
    LimitExceeded,
    StreamInconsistent,
    TaskLogsRpcError,
    TaskStateConflict,
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


class Follow:
    """An async iterator over the events of a task's log; made by `TaskLogsClient.follow`.

    It reads only while it is iterated, and keeps no more than the last entry. The call ends when
    the last reference to the follow is dropped; `async with` or `aclose` ends it at once. A
    `__anext__` that is cancelled loses nothing: the next one continues from the last cursor. Only
    one asyncio task may iterate it.
    """

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
        self._on_reconnect = on_reconnect
        self._assembly = Assembly()
        self._stream: Stream | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._messages = 0
        """How many messages the current stream has brought."""
        self._started = False
        """Whether any stream has brought a message."""
        self._broken = False
        """Whether the current or next stream continues one that broke."""
        self._ended = False
        self._closed = asyncio.Event()
        self._resume_at = 0.0
        """The next stream is opened at this loop time or later."""
        self._connect_by: float | None = None
        self._last_error: TaskLogsRpcError | None = None
        self._token_refused = False
        self._whole_entries = False
        self._snapshot_only = False

    @property
    def cursor(self) -> str | None:
        """Continues after the last event that was yielded.

        Before the first message: the cursor that the follow began with; None without one.
        """
        return self._assembly.cursor or self._request.cursor or None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FollowEvent:
        ended = self._ended
        if ended:
            raise StopAsyncIteration
        try:
            return await self._next_event()
        except asyncio.CancelledError:
            self._drop_stream()
            if self._ended:
                # Closed during a read: the reader sees the end. Its task was not cancelled.
                task = asyncio.current_task()
                if task is not None and not task.cancelling():
                    raise StopAsyncIteration from None
            raise
        except BaseException:
            self._ended = True
            self._drop_stream()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the follow; a running iteration ends."""
        self._ended = True
        self._closed.set()
        self._drop_stream()

    def __del__(self) -> None:
        # gRPC keeps a call alive that has no reference. This may run in any thread.
        if self._stream is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stream.cancel)

    async def _next_event(self) -> FollowEvent:
        loop = asyncio.get_running_loop()
        if self._connect_by is None and self._connect_timeout is not None:
            self._connect_by = loop.time() + self._connect_timeout.total_seconds()
        try:
            async with asyncio.timeout_at(None if self._started else self._connect_by) as limit:
                while True:
                    event = await self._next_of_stream()
                    if self._started:
                        limit.reschedule(None)
                    if event is not None:
                        return event
        except TimeoutError:
            if not limit.expired():
                raise
            raise self._last_error or DeadlineExceeded(
                code=grpc.StatusCode.DEADLINE_EXCEEDED,
                message="no response within connect_timeout",
            ) from None

    async def _next_of_stream(self) -> FollowEvent | None:
        try:
            if self._stream is None:
                await self._open()
            message = await self._read()
            event = self._assembly.apply(message)
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

    async def _open(self) -> None:
        await self._wait_for_turn()
        request = task_logs_pb2.FollowTaskLogsRequest()
        request.CopyFrom(self._request)
        if self._assembly.cursor is not None:
            request.ClearField("tail")
            request.cursor = self._assembly.cursor
        if self._whole_entries:
            request.deltas = request.compressed = False
        if self._snapshot_only:
            request.source = task_logs_pb2.LOG_SOURCE_SNAPSHOT
        if self._require is not None:
            await self._require()
            self._require = None
        metadata = await self._credentials.metadata()
        self._assembly.stream_opened()
        self._messages = 0
        # A running follow waits for a connection without a limit; the channel has its own backoff.
        # The first call fails at once, with the cause.
        self._loop = asyncio.get_running_loop()
        self._stream = self._method(request, metadata=metadata, wait_for_ready=self._started)

    async def _wait_for_turn(self) -> None:
        """Wait as the last failure demands. Raises StopAsyncIteration if the follow is closed."""
        if self._resume_at <= asyncio.get_running_loop().time():
            return
        try:
            async with asyncio.timeout_at(self._resume_at):
                await self._closed.wait()
        except TimeoutError:
            return
        raise StopAsyncIteration

    async def _read(self) -> Response:
        assert self._stream is not None
        # Keepalive tests the connection to the next proxy. This tests the way to the server, once
        # the stream has shown that there is one.
        silence = asyncio.timeout(self._silence_seconds if self._messages else None)
        try:
            with parsed_rpc_errors():
                async with silence:
                    message: object = readable(await self._stream.read())
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
        self._messages += 1
        # The first message, the status, shows that the server responds, not that it can continue.
        if self._messages > 1:
            self._backoff.reset()
        else:
            self._token_refused = False
            self._started = True
            if self._broken and self._on_reconnect is not None:
                self._on_reconnect(Reconnected())
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
        self._broken, self._last_error = True, error
        delay = self._backoff.next_wait(error.retry_after)
        self._resume_at = asyncio.get_running_loop().time() + delay.total_seconds()
        if self._on_reconnect is not None:
            self._on_reconnect(
                Reconnecting(error=error, attempt=self._backoff.failures, delay=delay)
            )

    def _may_go_on(self, error: TaskLogsRpcError) -> bool:
        if self._started and _is_from_a_proxy(error):
            return True
        match error:
            case Unauthenticated():
                asked_before, self._token_refused = self._token_refused, True
                return self._credentials.can_refresh and not asked_before
            case _ if not self._started:
                return error.code is grpc.StatusCode.UNAVAILABLE
            case TaskStateConflict():
                return not self._snapshot_only or self._messages > 0
            case LimitExceeded():
                return error.retry_after is not None
            case _:
                return error.code in _PASSING

    def _drop_stream(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None


def _is_from_a_proxy(error: TaskLogsRpcError) -> bool:
    if error.is_from_the_server:
        return False
    return error.http_status is not None or error.code in _REFUSED_BY_A_PROXY
