"""A follow: an async iterator over the events of a log."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from tasklogs.client.events import FollowEvent
from tasklogs.client.follow_streams import FollowStreams
from tasklogs.errors import ClientClosed

Read = asyncio.Task[FollowEvent]


class Follow:
    """An async iterator over the events of a task's log; made by `TaskLogsClient.follow`.

    It reads only while it is iterated, and at most one event ahead: a `__anext__` that is
    cancelled, for example by `asyncio.timeout`, goes on in the background, and the next one returns
    its event. The call ends when the last reference to the follow is dropped; `async with` or
    `aclose` ends it at once.
    """

    def __init__(self, streams: FollowStreams, reads: set[Read]) -> None:
        """`reads` gets the tasks that read. The client awaits the rest when it is closed."""
        self._streams = streams
        self._reads = reads
        self._pending: Read | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = False

    @property
    def cursor(self) -> str | None:
        """Continues after the last event that was yielded.

        Before the first message: the cursor that the follow began with; None without one.
        """
        return self._streams.cursor

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FollowEvent:
        while not self._ended:
            read = self._pending = self._pending or self._begin()
            await asyncio.wait({read})
            if self._pending is not read:
                continue  # another reader took its event, or the follow was closed
            self._pending = None
            return self._taken(read)
        raise StopAsyncIteration

    def _begin(self) -> Read:
        self._loop = asyncio.get_running_loop()
        read = self._loop.create_task(self._streams.next_event())
        # The loop itself keeps no reference.
        self._reads.add(read)
        read.add_done_callback(self._reads.discard)
        read.add_done_callback(_retrieve)
        return read

    def _taken(self, read: Read) -> FollowEvent:
        try:
            event = read.result()
        except asyncio.CancelledError:
            # Not the reader was cancelled, but the call: the owner of the channel closed it.
            self._ended = True
            raise ClientClosed from None
        except BaseException:
            self._ended = True
            raise
        self._streams.cursor = event.cursor
        return event

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
        read, self._pending = self._pending, None
        _end(self._streams, read)
        # The function for the token, or `on_reconnect`, may be what closes it.
        if read is not None and read is not asyncio.current_task():
            await asyncio.wait({read})

    def __del__(self) -> None:
        # gRPC keeps a call alive that has no reference. This may run in any thread.
        if self._loop is not None and not self._ended and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_end, self._streams, self._pending)


def _end(streams: FollowStreams, read: Read | None) -> None:
    streams.close()
    if read is not None:
        read.cancel()


def _retrieve(read: Read) -> None:
    """Let asyncio not report an exception that no reader wanted."""
    if not read.cancelled():
        read.exception()
