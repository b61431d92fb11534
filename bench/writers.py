"""The writers of one client process: agents whose last entry changes, and readers beside them.

Each writer has a log of 30 entries and 64 KB. A change replaces the last 500 characters of its last
entry, so the log keeps its size.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import math
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import grpc

from bench.agents import Agent, append_bytes, connect_all
from bench.text import words
from tasklogs import delta_codec
from tasklogs.connection.channel import open_channel
from tasklogs.log.content import Content
from tasklogs.log.delta import Delta
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import types_pb2 as types

CHANGED_BYTES = 500
CHANGE = struct.Struct(">16si")
"""What the bare server's Change takes: the task and the ordinal; then the content follows."""


class Writer:
    """One task's agent. `write` sends the log, then each `change` its new end."""

    def __init__(self, agent: Agent, entries: int, content_bytes: int) -> None:
        self._agent = agent
        self._entries = entries
        self._content = Content(words(content_bytes).encode())

    async def write(self) -> None:
        """Append the whole log as a new epoch."""
        append = pb.LogAppend()
        for entry_id in range(self._entries):
            entry = append.entries.add(
                id=entry_id, type=types.TASK_LOG_TYPE_OUTPUT, content=self._content.data.decode()
            )
            entry.time.seconds = 1_760_000_000 + entry_id
        sequence = self._agent.sequence + 1
        entries = append.SerializeToString()
        await self._agent.append(append_bytes(sequence, open_epoch=True, entries=entries))

    async def change(self) -> None:
        """Change the end of the last entry. Returns when that is acknowledged."""
        sequence = self._agent.sequence + 1
        text = words(CHANGED_BYTES, seed=sequence % 97).encode()
        delta = Delta.keeping(len(self._content) - CHANGED_BYTES, text)
        self._content.patch(delta)
        append = pb.LogAppend(sequence=sequence)
        append.tail.id = self._entries - 1
        append.tail.time.seconds = 1_760_000_000 + sequence
        append.tail.content.CopyFrom(delta_codec.encode(delta, self._content.crc32))
        await self._agent.append(pb.AgentMessage(append=append).SerializeToString())


class Writers:
    """The writers of one client process, in the order of their tokens."""

    def __init__(self) -> None:
        self._agents: list[Agent] = []
        self._writers: list[Writer] = []
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._made = 0

    async def open(self, address: str, tokens: list[str], entries: int, content_bytes: int) -> int:
        """Connect one writer per token, and write its log. Returns their number."""
        agents = await connect_all(address, tokens)
        self._agents += agents
        opened = [Writer(agent, entries, content_bytes) for agent in agents]
        await asyncio.gather(*(writer.write() for writer in opened))
        self._writers += opened
        return len(self._writers)

    async def write(self, rate: float, seconds: float) -> int:
        """Let each writer change its log so often per second. Returns the changes."""
        changes = round(rate * seconds)
        began = time.perf_counter()

        async def one(writer: Writer) -> None:
            for number in range(changes):
                await asyncio.sleep(began + number / rate - time.perf_counter())
                await writer.change()

        await asyncio.gather(*(one(writer) for writer in self._writers))
        return changes * len(self._writers)

    async def mix(
        self,
        address: str,
        method: str,
        requests: list[str],
        reads_per_change: int,
        seconds: float = math.inf,
        calls_each: float = math.inf,
    ) -> dict[str, Any]:
        """Let one caller per request (base64) read, for this long or so many calls.

        Each changes its own task before every nth read; 0: never. Returns reads and seconds.
        """
        changes = [writer.change for writer in self._writers]
        return await self._read(
            address, method, requests, changes, reads_per_change, seconds, calls_each
        )

    async def mix_bare(
        self,
        address: str,
        method: str,
        tasks: list[str],
        ordinal: int,
        content_bytes: int,
        reads_per_change: int,
        seconds: float = math.inf,
        calls_each: float = math.inf,
    ) -> dict[str, Any]:
        """Do the same to the bare server. A task is its UUID in hex."""
        call: Any = self._channel(address).unary_unary("/bench.Bare/Change")

        def change(task: str) -> Callable[[], Awaitable[None]]:
            async def run() -> None:
                self._made += 1
                text = words(content_bytes, seed=self._made % 97).encode()
                await call(CHANGE.pack(UUID(task).bytes, ordinal) + text)

            return run

        requests = [base64.b64encode(UUID(task).bytes).decode() for task in tasks]
        changes = [change(task) for task in tasks]
        return await self._read(
            address, method, requests, changes, reads_per_change, seconds, calls_each
        )

    async def close(self) -> int:
        """Disconnect. Returns 0, the number of writers that are left."""
        for agent in self._agents:
            await agent.close()
        for channel in self._channels.values():
            await channel.close()
        self._agents, self._writers, self._channels = [], [], {}
        return 0

    async def _read(
        self,
        address: str,
        method: str,
        requests: list[str],
        changes: Sequence[Callable[[], Awaitable[None]]],
        reads_per_change: int,
        seconds: float,
        calls_each: float,
    ) -> dict[str, Any]:
        call: Any = self._channel(address).unary_unary(method)
        began = time.perf_counter()

        async def one(index: int) -> int:
            request, change = base64.b64decode(requests[index]), changes[index]
            for number in itertools.count(1):
                # The callers do not change their tasks at the same moment.
                if reads_per_change and (number + index) % reads_per_change == 0:
                    await change()
                await call(request)
                if number >= calls_each or time.perf_counter() >= began + seconds:
                    return number
            raise AssertionError

        reads = await asyncio.gather(*(one(index) for index in range(len(requests))))
        return {"seconds": time.perf_counter() - began, "reads": sum(reads)}

    def _channel(self, address: str) -> grpc.aio.Channel:
        if address not in self._channels:
            self._channels[address] = open_channel(address)
        return self._channels[address]
