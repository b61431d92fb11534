"""What becomes of a handler's function on the way to gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tasklogs_server.middleware.handlers import writing


class LeavingCaller:
    """The context of a call whose caller leaves: a write fails."""

    async def write(self, _: object) -> None:
        raise ConnectionError("the caller left")


async def test_a_cancellation_during_the_cleanup_does_not_cut_it_off() -> None:
    closes, may_close, cleaned = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def responses(*_: Any) -> AsyncIterator[bytes]:
        try:
            yield b""
        finally:
            closes.set()
            await may_close.wait()
            cleaned.set()

    context: Any = LeavingCaller()
    call = asyncio.create_task(writing(responses)(None, context))
    await closes.wait()
    call.cancel()
    done, _ = await asyncio.wait([call], timeout=0)
    assert not done
    may_close.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert cleaned.is_set()


async def test_an_error_of_a_write_is_raised_after_the_cleanup() -> None:
    cleaned = asyncio.Event()

    async def responses(*_: Any) -> AsyncIterator[bytes]:
        try:
            yield b""
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    context: Any = LeavingCaller()
    with pytest.raises(ConnectionError):
        await writing(responses)(None, context)
    assert cleaned.is_set()
