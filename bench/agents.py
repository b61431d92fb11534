"""Scripted agents: streams that answer syncs, flood, grow an answer, or do nothing.

Each has its own channel and so its own connection, like a real agent.
"""

from __future__ import annotations

import asyncio
import math
import time
from pathlib import Path
from typing import Any

import grpc

from bench.text import words
from tasklogs.connection import channel as client_channel
from tasklogs.connection.tls import Tls
from tasklogs.publish.stream_status import StreamCall
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import types_pb2 as types
from tasklogs_server.wire.entries import encode_fields

CONNECT = "/tasklogs.v1.TaskAgents/Connect"
# The server admits a few at a time; the others would only wait there.
_HANDSHAKES = 32
_APPEND_TAG = 0x12  # AgentMessage.append: field 2, length-delimited


def own_channel(address: str, ca: str = "") -> grpc.aio.Channel:
    """Open a channel that shares its connection with no other. `ca`: its file; empty: no TLS."""
    return client_channel.open_channel(
        address,
        tls=Tls(ca=Path(ca)) if ca else None,
        options=[("grpc.use_local_subchannel_pool", 1)],
    )


def append_bytes(sequence: int, *, open_epoch: bool, entries: bytes) -> bytes:
    """Encode an AgentMessage with a LogAppend of entries that are encoded already."""
    body = pb.LogAppend(sequence=sequence, open_epoch=open_epoch).SerializeToString() + entries
    return encode_fields((_APPEND_TAG, len(body))) + body


class Agent:
    """One agent stream whose agent is ready and whose task app is healthy."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._channel = channel
        connect: Any = channel.stream_stream(
            CONNECT, response_deserializer=pb.ServerMessage.FromString
        )
        self._call = StreamCall(connect(metadata=(("authorization", f"Bearer {token}"),)))
        # gRPC takes one write at a time: a sync is answered while an append may be under way.
        self._writing = asyncio.Lock()
        self._acked = 0
        self._progress = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self.sequence = 0

    @classmethod
    async def connect(cls, address: str, token: str, ca: str = "") -> Agent:
        agent = cls(own_channel(address, ca), token)
        await agent._send(pb.AgentMessage(hello=pb.Hello(agent_version="bench")))
        welcome = await agent._call.read()
        assert isinstance(welcome, pb.ServerMessage), "the stream ended"
        assert welcome.HasField("welcome"), welcome
        ready = pb.StateReport(
            lifecycle=types.AGENT_LIFECYCLE_READY, app_health=types.APP_HEALTH_HEALTHY
        )
        await agent._send(pb.AgentMessage(state=ready))
        agent._reading = asyncio.create_task(agent._read())
        return agent

    async def append(self, message: bytes) -> None:
        """Send the append with the next sequence number and wait for its ack."""
        self.sequence += 1
        await self._write(message)
        while self._acked < self.sequence:
            assert self._reading is not None
            if self._reading.done():
                self._reading.result()  # raises what the server said
                raise RuntimeError("an agent stream ended")
            self._progress.clear()
            await self._progress.wait()

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        self._call.cancel()
        await self._channel.close()

    async def _send(self, message: pb.AgentMessage) -> None:
        await self._write(message.SerializeToString())

    async def _write(self, message: bytes) -> None:
        async with self._writing:
            await self._call.write(message)

    async def _read(self) -> None:
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                if message.HasField("sync"):
                    await self._send(pb.AgentMessage(sync_done=pb.SyncDone(id=message.sync.id)))
                elif message.HasField("ack"):
                    self._acked = message.ack.sequence
                    self._progress.set()
        finally:
            # A caller that waits for an ack sees that none will come.
            self._progress.set()


async def connect_all(address: str, tokens: list[str], ca: str = "") -> list[Agent]:
    """Connect one agent per token."""
    turn = asyncio.Semaphore(_HANDSHAKES)

    async def one(token: str) -> Agent:
        async with turn:
            return await Agent.connect(address, token, ca)

    return list(await asyncio.gather(*(one(token) for token in tokens)))


class Agents:
    """The agents of one client process."""

    def __init__(self) -> None:
        self._agents: list[Agent] = []
        self._idle: list[tuple[grpc.aio.Channel, Any]] = []
        self._blocks: dict[int, bytes] = {}

    async def open(self, address: str, tokens: list[str], ca: str = "") -> int:
        """Connect one agent per token. Returns their number."""
        self._agents += await connect_all(address, tokens, ca)
        return len(self._agents)

    async def open_idle(self, address: str, method: str, count: int) -> int:
        """Open streams to a bare server. Returns their number."""
        turn = asyncio.Semaphore(_HANDSHAKES)

        async def one() -> tuple[grpc.aio.Channel, Any]:
            async with turn:
                channel = own_channel(address)
                call: Any = channel.stream_stream(method)()
                await call.write(b"hello")
                return channel, call

        self._idle += await asyncio.gather(*(one() for _ in range(count)))
        return len(self._idle)

    async def flood(
        self,
        entries_per_append: int,
        content_bytes: int,
        seconds: float = math.inf,
        appends_each: float = math.inf,
    ) -> dict[str, Any]:
        """Let every agent append as fast as its acks come, for this long, or so often."""
        began = time.perf_counter()
        sent = await asyncio.gather(
            *(
                self._flood(agent, began + seconds, appends_each, entries_per_append, content_bytes)
                for agent in self._agents
            )
        )
        return {"seconds": time.perf_counter() - began, "entries": sum(sent)}

    async def close(self) -> int:
        """End all streams. Returns 0, the number that is left."""
        await asyncio.gather(*(agent.close() for agent in self._agents))
        for channel, call in self._idle:
            call.cancel()
            await channel.close()
        self._agents, self._idle = [], []
        return 0

    async def _flood(
        self, agent: Agent, until: float, appends: float, entries: int, content_bytes: int
    ) -> int:
        committed = 0
        while committed < appends * entries and time.perf_counter() < until:
            sequence = agent.sequence + 1
            block = self._block(sequence, entries, content_bytes)
            message = append_bytes(sequence, open_epoch=sequence == 1, entries=block)
            await agent.append(message)
            committed += entries
        return committed

    def _block(self, sequence: int, entries: int, content_bytes: int) -> bytes:
        # All agents send the same conversation. It is encoded once, so that the client does not
        # measure its own protobuf.
        if sequence not in self._blocks:
            first = (sequence - 1) * entries
            append = pb.LogAppend()
            for entry_id in range(first, first + entries):
                entry = append.entries.add(
                    id=entry_id,
                    type=types.TASK_LOG_TYPE_OUTPUT,
                    content=words(content_bytes, seed=entry_id % 97),
                )
                entry.time.seconds = 1_760_000_000 + entry_id
                entry.time.nanos = 123_456_000
            self._blocks[sequence] = append.SerializeToString()
        return self._blocks[sequence]
