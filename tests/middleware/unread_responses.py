"""A caller of GetTaskLogs who grants no window until a test tells it to."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

from tasklogs.v1 import task_logs_pb2 as pb
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.server import Server
from tests.system.hostile import frames
from tests.system.hostile.frames import Kind
from tests.system.hostile.peer import GONE, Peer, Tally
from tests.system.hostile.target import Target

GET_TASK_LOGS = "/tasklogs.v1.TaskLogs/GetTaskLogs"
FOLLOW_TASK_LOGS = "/tasklogs.v1.TaskLogs/FollowTaskLogs"
PAGE_BYTES = 900_000
# Enough for the first message of a follow, the status, and not for an entry.
FOLLOW_WINDOW_BYTES = 1000


async def fill(server: Server, name: str = "demo") -> None:
    """Create `local/<name>` with a log that fills a page."""
    token = (await server.create_task(name)).agent_token
    async with ScriptedAgent.connect(server, token) as agent:
        await agent.append([log_entry(0, "x" * PAGE_BYTES)], open_epoch=True)
        await agent.acked()


@dataclass
class Reader:
    """One connection. Its streams grant no window by themselves."""

    peer: Peer
    target: Target
    began: set[int] = field(default_factory=set)
    """Streams whose response has begun."""
    received: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    """Bytes of DATA, by stream."""
    ended: dict[int, int | None] = field(default_factory=dict)
    """The code of RST_STREAM, by stream; None if it ended with trailers."""
    closed: bool = False
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @classmethod
    @asynccontextmanager
    async def connected(cls, server: Server) -> AsyncIterator[Self]:
        target = Target(int(server.address.rpartition(":")[2]), "local/demo", "")
        async with Peer.connected(target, Tally()) as peer:
            await peer.begin({frames.INITIAL_WINDOW_SIZE: 0})
            reader = cls(peer, target)
            listening = asyncio.create_task(reader._listen())
            try:
                yield reader
            finally:
                listening.cancel()
                await asyncio.wait({listening})

    async def ask(self, task: str = "local/demo") -> int:
        """Request a page. Returns the stream."""
        request = pb.GetTaskLogsRequest(task=task).SerializeToString()
        return await self.peer.call(self.target, GET_TASK_LOGS, request, None)

    async def ask_until_answered(self) -> int:
        """Request a page, and wait until the response has begun: its headers need no window."""
        stream = await self.ask()
        await self.until(lambda: stream in self.began)
        return stream

    async def grant_window(self, stream: int) -> None:
        """Grant the largest possible window."""
        most = frames.MAX_WINDOW_BYTES - 65_535
        await self.peer.grant(most)
        await self.peer.grant(most, stream)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS), self._changed:
            await self._changed.wait_for(condition)

    async def _listen(self) -> None:
        try:
            while True:
                frame = await self.peer.next_frame()
                await self.peer.take(frame)
                async with self._changed:
                    if frame.kind == Kind.HEADERS:
                        self.began.add(frame.stream)
                        if frame.flags & frames.END_STREAM:
                            self.ended[frame.stream] = None
                    elif frame.kind == Kind.DATA:
                        self.received[frame.stream] += len(frame.payload)
                    elif frame.kind == Kind.RST_STREAM:
                        self.ended.setdefault(frame.stream, int.from_bytes(frame.payload, "big"))
                    self._changed.notify_all()
        except GONE:
            async with self._changed:
                self.closed = True
                self._changed.notify_all()


async def follow(reader: Reader) -> int:
    """Begin a follow that reads its first message, and nothing after it. Returns the stream."""
    request = pb.FollowTaskLogsRequest(task="local/demo", source=pb.LOG_SOURCE_SNAPSHOT)
    stream = await reader.peer.call(
        reader.target, FOLLOW_TASK_LOGS, request.SerializeToString(), None
    )
    await reader.peer.grant(FOLLOW_WINDOW_BYTES, stream)
    await reader.until(lambda: reader.received[stream] > 0)
    return stream
