"""The status with which the peer ended a stream, which grpc.aio may hide."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import grpc

_T = TypeVar("_T")

_FROM_CORE = "Internal error from Core"
_WAIT_SECONDS = 0.5

Call = grpc.aio.StreamStreamCall[Any, Any]


class StreamStatus:
    """Keeps the first status that a call gets.

    If a write fails because the peer has just ended the stream, grpc.aio sets INTERNAL ("Internal
    error from Core"), in place of the peer's status or before it arrives.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._first: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._keep)

    async def of(self, raised: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """Return the peer's status, in place of what a read or write raised."""
        if not _is_from_core(raised):
            return raised
        deadline = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < deadline:
            if self._first is not None and not _is_from_core(self._first):
                return self._first
            await asyncio.sleep(0.01)
            self._keep(self._call)
        return raised

    def _keep(self, call: Any) -> None:
        # A task would run only after the write that overwrites the status. These do not wait here.
        code = _at_once(call.code())
        if code is None or (self._first is not None and not _is_from_core(self._first)):
            return
        self._first = grpc.aio.AioRpcError(
            code,
            _at_once(call.initial_metadata()) or grpc.aio.Metadata(),
            _at_once(call.trailing_metadata()) or grpc.aio.Metadata(),
            _at_once(call.details()),
        )


def _is_from_core(error: grpc.aio.AioRpcError) -> bool:
    return error.code() is grpc.StatusCode.INTERNAL and error.details() == _FROM_CORE


def _at_once(coroutine: Coroutine[Any, Any, _T]) -> _T | None:
    """Return the coroutine's result if it does not have to wait; else None."""
    try:
        coroutine.send(None)
    except StopIteration as returned:
        value: _T = returned.value
        return value
    coroutine.close()
    return None
