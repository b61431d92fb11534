"""A bidirectional stream whose errors carry the status that the peer ended it with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import grpc

_T = TypeVar("_T")

_FROM_CORE = "Internal error from Core"
_WAIT_SECONDS = 5.0
_LOOK_EVERY_SECONDS = 0.01

Call = grpc.aio.StreamStreamCall[Any, Any]


class StreamCall:
    """A grpc.aio call to read from and write to.

    Make it before the first message is written. A write that fails because the peer has just ended
    the stream sets the status INTERNAL ("Internal error from Core"), over the peer's own status or
    before that arrives, and grpc.aio then reports it for every later read, too.
    """

    def __init__(self, call: Call) -> None:
        self._call: Any = call
        self._status = StreamStatus(call)

    async def write(self, message: Any) -> None:
        """Send a message.

        Raises AioRpcError with the peer's status, which may be OK, where the stream has ended.
        """
        try:
            await self._call.write(message)
        except grpc.aio.AioRpcError as error:
            raise await self._status.of(error) from None
        except asyncio.InvalidStateError:
            if not self._call.done():
                raise  # done_writing() was called before
            raise await self._status.at_the_end() from None

    async def read(self) -> Any:
        """Return the next message, or `grpc.aio.EOF` where the peer ended the stream with OK.

        None is gRPC's answer for bytes that cannot be decoded. Raises AioRpcError with the peer's
        status for any other end.
        """
        try:
            return await self._call.read()
        except grpc.aio.AioRpcError as error:
            status = await self._status.of(error)
            if status.code() is grpc.StatusCode.OK:
                return grpc.aio.EOF
            raise status from None

    async def done_writing(self) -> None:
        """Send nothing more; nothing where the stream has ended."""
        await self._call.done_writing()

    def cancel(self) -> None:
        """End the stream, if it still runs."""
        self._call.cancel()

    @property
    def is_cancelled(self) -> bool:
        """Whether the stream ended CANCELLED, by `cancel` or by the peer."""
        return bool(self._call.cancelled())

    async def status(self) -> grpc.aio.AioRpcError:
        """Wait for the end of the stream; return the peer's status, which may be OK."""
        await self._call.code()
        return await self._status.at_the_end()


class StreamStatus:
    """Keeps the first status that a call gets, for calls that are not a StreamCall's."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._first: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._keep)

    async def of(self, raised: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """Return what the peer said, in place of what a read or write raised."""
        return await self._first_of_peer() or raised if _is_from_core(raised) else raised

    async def at_the_end(self) -> grpc.aio.AioRpcError:
        """Return how a call ended that is over."""
        now = _status_at_once(self._call)
        assert now is not None, "the call is not over"
        return await self._first_of_peer() or now

    async def _first_of_peer(self) -> grpc.aio.AioRpcError | None:
        deadline = time.monotonic() + _WAIT_SECONDS
        while self._first is None or _is_from_core(self._first):
            if time.monotonic() > deadline:
                return None
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
            self._keep(self._call)
        return self._first

    def _keep(self, call: Any) -> None:
        # A task would run after the write that overwrites this; what these wait for is there.
        if self._first is None or _is_from_core(self._first):
            self._first = _status_at_once(call) or self._first


def _is_from_core(error: grpc.aio.AioRpcError) -> bool:
    return error.code() is grpc.StatusCode.INTERNAL and error.details() == _FROM_CORE


def _status_at_once(call: Any) -> grpc.aio.AioRpcError | None:
    code = _at_once(call.code())
    if code is None:
        return None
    return grpc.aio.AioRpcError(
        code,
        _at_once(call.initial_metadata()) or grpc.aio.Metadata(),
        _at_once(call.trailing_metadata()) or grpc.aio.Metadata(),
        _at_once(call.details()),
    )


def _at_once(coroutine: Coroutine[Any, Any, _T]) -> _T | None:
    """Return the coroutine's result if it does not have to wait; else None."""
    try:
        coroutine.send(None)
    except StopIteration as returned:
        value: _T = returned.value
        return value
    coroutine.close()
    return None
