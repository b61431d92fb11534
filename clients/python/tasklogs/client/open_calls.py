"""The running calls of a client: when it is closed, each of them raises ClientClosed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio

from tasklogs.errors import ClientClosed


class OpenCalls:
    """The calls of one client, from `open` to `close`."""

    def __init__(self) -> None:
        self._channel: grpc.aio.Channel | None = None
        self._limits: set[asyncio.Timeout] = set()

    def open(self, channel: grpc.aio.Channel) -> None:
        """Accept calls, which use `channel`."""
        self._channel = channel

    def close(self) -> None:
        """Let each call that runs, and each later one, raise ClientClosed."""
        self._channel = None
        limits, self._limits = self._limits, set()
        for limit in limits:
            # Now: asyncio knows how to cancel a task so that this is not mistaken for its own end.
            limit.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Make a call inside the `async with`. Raises ClientClosed."""
        if self._channel is None:
            raise ClientClosed
        channel = self._channel
        task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._limits.add(limit)
                try:
                    yield
                finally:
                    self._limits.discard(limit)
        except TimeoutError:
            if not limit.expired():
                raise
            raise ClientClosed from None
        except asyncio.CancelledError:
            # When a channel is closed, gRPC cancels the calls on it, but no task.
            if task.cancelling() <= before and (self._channel is not channel or _is_shut(channel)):
                raise ClientClosed from None
            raise
        except grpc.aio.UsageError:
            raise ClientClosed from None


def _is_shut(channel: grpc.aio.Channel) -> bool:
    return channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN
