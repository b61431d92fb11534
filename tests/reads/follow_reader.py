"""A reader of one follow that records its messages, and can stop reading."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc

from tasklogs.v1 import task_logs_pb2 as pb
from tests.reads.follow_view import View, events
from tests.support.fixtures.conditions import DEADLINE_SECONDS

Messages = AsyncIterator[pb.FollowTaskLogsResponse]


@dataclass
class Reader:
    """One stream, while it is read."""

    view: View
    messages: list[pb.FollowTaskLogsResponse] = field(default_factory=list)
    error: Exception | None = None
    ended: bool = False
    reads_on: asyncio.Event = field(default_factory=asyncio.Event)
    _heard: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def events(self) -> list[str]:
        """The kinds of all messages so far."""
        return events(self.messages)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` is true for what was read. Fail if the stream ends before."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():
                if self.ended:
                    raise AssertionError(f"the stream ended: {self.error!r}")
                self._heard.clear()
                await self._heard.wait()

    @property
    def but_progress(self) -> list[str]:
        """The kinds of all messages without those that are sent after a quiet time."""
        return [event for event in self.events if event != "progress"]

    async def heard(self, event: str, count: int = 1) -> None:
        """Wait for messages of a kind."""
        await self.until(lambda: self.events.count(event) >= count)

    async def reached(self, revision: int) -> None:
        """Wait until everything up to `revision` was read."""
        await self.until(lambda: self.view.revision >= revision)

    async def end(self) -> Exception | None:
        """Wait until the stream ends; return its error."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not self.ended:
                self._heard.clear()
                await self._heard.wait()
        return self.error

    async def read(self, messages: Messages) -> None:
        """Read to the end."""
        try:
            await self.reads_on.wait()
            async for message in messages:
                self.messages.append(message)
                self.view.apply(message)
                self._heard.set()
                await self.reads_on.wait()
        except grpc.aio.AioRpcError as error:
            self.error = error
        except Exception as error:
            self.error = error
        finally:
            self.ended = True
            self._heard.set()


@asynccontextmanager
async def reading(messages: Messages, view: View | None = None) -> AsyncIterator[Reader]:
    """Read a follow as long as the block lasts, then cancel it."""
    reader = Reader(view or View())
    reader.view.reconnect()
    reader.reads_on.set()
    task = asyncio.create_task(reader.read(messages), name="follow reader")
    try:
        yield reader
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    if isinstance(reader.error, AssertionError):
        raise reader.error
