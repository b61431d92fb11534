"""Publishers of one client process: agents for our server, bare streams for the bare server."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import grpc

from bench.agents import Agent, connect_all, own_channel
from bench.bare_fan_out import PUBLISH, TOPIC
from bench.followers import Followers
from bench.stamp import stamp
from bench.typing_agents import TypingAgent, entry_append
from tasklogs.publish.stream_status import StreamCall

_DEADLINE_SECONDS = 20


class Publisher(Protocol):
    """Sends a change and waits until it is acknowledged."""

    async def publish(self, number: int) -> None:
        """Send the change with this number; return when it is acknowledged."""

    async def close(self) -> None:
        """Disconnect."""


class OurPublisher:
    """An agent that appends one entry per change."""

    def __init__(self, agent: Agent, content_bytes: int) -> None:
        self._agent = agent
        self._content_bytes = content_bytes

    async def publish(self, number: int) -> None:
        await self._agent.append(entry_append(number, self._content_bytes))

    async def close(self) -> None:
        await self._agent.close()


class BarePublisher:
    """A stream to the bare server; each message is answered."""

    def __init__(self, address: str, topic: str, message_bytes: int) -> None:
        self._channel: grpc.aio.Channel = own_channel(address)
        publish: Any = self._channel.stream_stream(PUBLISH)
        self._call = StreamCall(publish(metadata=((TOPIC, topic),)))
        self._filling = b"x" * (message_bytes - len(stamp(0)))

    async def publish(self, number: int) -> None:
        await self._call.write(self._filling + stamp(number).encode())
        assert isinstance(await self._call.read(), bytes), "the stream ended"

    async def close(self) -> None:
        self._call.cancel()
        await self._channel.close()


class _Receivers:
    """Counts what all followers have: each client process sends `.` for each number."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._counts: list[int] = []
        self._moved = asyncio.Event()

    async def listen(self) -> int:
        self._server = await asyncio.start_server(self._count, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def have(self, number: int, processes: int) -> None:
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                while len(self._counts) < processes or min(self._counts) < number:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            raise RuntimeError(
                f"change {number} did not arrive at all followers; by process: {self._counts}"
            ) from None

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._server, self._counts = None, []

    async def _count(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        process = len(self._counts)
        self._counts.append(0)
        self._moved.set()
        counts = self._counts
        while said := await reader.read(4096):
            counts[process] += len(said)
            self._moved.set()
        writer.close()


class Publishing:
    """The publishers of one client process."""

    def __init__(self, followers: Followers) -> None:
        self._followers = followers
        self._publishers: list[Publisher] = []
        self._typing: list[TypingAgent] = []
        self._typing_agents: list[Agent] = []
        self._receivers = _Receivers()
        self._published = 0

    async def open_ours(self, address: str, tokens: list[str], content_bytes: int) -> int:
        """Connect one agent per token. Each publishes one entry per change."""
        agents = await connect_all(address, tokens)
        self._publishers = [OurPublisher(agent, content_bytes) for agent in agents]
        self._published = 0
        return len(agents)

    async def open_bare(self, address: str, topics: list[str], message_bytes: int) -> int:
        """Connect one stream per topic."""
        self._publishers = [BarePublisher(address, topic, message_bytes) for topic in topics]
        self._published = 0
        return len(topics)

    async def open_typing(self, address: str, tokens: list[str]) -> int:
        """Connect one agent per token, for `type`."""
        self._typing_agents = await connect_all(address, tokens)
        self._typing = [TypingAgent(*one[::-1]) for one in enumerate(self._typing_agents)]
        return len(tokens)

    async def listen(self) -> int:
        """Listen for followers of other processes. Returns the port for their receipts."""
        return await self._receivers.listen()

    async def publish_to_all(
        self, window: int, processes: int, seconds: float = math.inf, changes: float = math.inf
    ) -> dict[str, Any]:
        """Publish for this long, or so many changes.

        At most `window` changes have not arrived at every follower.
        """
        (publisher,) = self._publishers
        began, first = time.perf_counter(), self._published
        while self._published < first + changes and time.perf_counter() < began + seconds:
            await self._receivers.have(self._published + 1 - window, processes)
            self._published += 1
            async with asyncio.timeout(_DEADLINE_SECONDS):
                await publisher.publish(self._published)
        await self._receivers.have(self._published, processes)
        return {"seconds": time.perf_counter() - began, "changes": self._published - first}

    async def publish_in_pairs(
        self, seconds: float = math.inf, changes_each: float = math.inf
    ) -> dict[str, Any]:
        """Let each publisher send its next change when its own follower in this process has it.

        It ends after this long, or so many changes of each. A publisher and its follower were
        opened at the same index.
        """
        began = time.perf_counter()
        until = began + seconds

        async def one(number: int, publisher: Publisher) -> None:
            follower = self._followers.streams[number]
            last = follower.number + changes_each
            while follower.number < last and time.perf_counter() < until:
                change = follower.number + 1
                under_way[number] = f"change {change} is not acknowledged"
                await publisher.publish(change)
                under_way[number] = f"change {change} did not arrive"
                await follower.reaches(change)
            under_way.pop(number, None)

        under_way: dict[int, str] = {}
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                await asyncio.gather(*(one(*pair) for pair in enumerate(self._publishers)))
        except TimeoutError:
            raise RuntimeError(f"by publisher: {under_way}") from None
        return {"seconds": time.perf_counter() - began}

    async def type(self, rate: float, seconds: float, redraws: bool) -> list[dict[str, Any]]:
        """Change each task at this rate. Returns the time of each change."""
        await asyncio.gather(*(one.run(rate, seconds, redraws=redraws) for one in self._typing))
        return [{"first": one.first, "times": one.times} for one in self._typing]

    async def close(self) -> int:
        """Disconnect. Returns 0, the number of publishers that are left."""
        for publisher in self._publishers:
            await publisher.close()
        for agent in self._typing_agents:
            await agent.close()
        self._receivers.close()
        self._publishers, self._typing, self._typing_agents = [], [], []
        return 0


class Sides:
    """The contestants of a client process by name. bench/side.py sends their orders."""

    def __init__(self) -> None:
        self._sides: dict[str, dict[str, Callable[..., Awaitable[Any]]]] = {}

    async def do(self, name: str, order: str, arguments: dict[str, Any]) -> Any:
        """Carry out one order. Returns its result."""
        if name not in self._sides:
            self._sides[name] = _orders()
        return await self._sides[name][order](**arguments)


def _orders() -> dict[str, Callable[..., Awaitable[Any]]]:
    followers = Followers()
    publishing = Publishing(followers)
    return {
        "follow": followers.open,
        "collect": followers.collect,
        "counts": followers.counts,
        "leave": followers.close,
        "open_ours": publishing.open_ours,
        "open_bare": publishing.open_bare,
        "open_typing": publishing.open_typing,
        "listen": publishing.listen,
        "publish_to_all": publishing.publish_to_all,
        "publish_in_pairs": publishing.publish_in_pairs,
        "type": publishing.type,
        "close": publishing.close,
    }
