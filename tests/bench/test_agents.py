from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from bench.agents import Agent
from bench.writers import Writer
from tasklogs.v1 import task_agents_pb2 as pb
from tests.support.fixtures.server import Server


class _Channel:
    """Its stream takes one write at a time, like gRPC. It asks for a sync during each append."""

    def __init__(self) -> None:
        self._answers: asyncio.Queue[pb.ServerMessage] = asyncio.Queue()
        self._is_writing = False
        self.synced: list[int] = []

    def stream_stream(self, method: str, **_: object) -> Callable[..., Any]:
        return lambda **_: self

    async def write(self, message: bytes) -> None:
        assert not self._is_writing, "a second write began"
        self._is_writing = True
        sent = pb.AgentMessage.FromString(message)
        if sent.HasField("hello"):
            self._answers.put_nowait(pb.ServerMessage(welcome=pb.Welcome()))
        elif sent.HasField("sync_done"):
            self.synced.append(sent.sync_done.id)
        elif sent.HasField("append"):
            sequence = sent.append.sequence
            self._answers.put_nowait(pb.ServerMessage(sync=pb.Sync(id=sequence)))
            self._answers.put_nowait(pb.ServerMessage(ack=pb.Ack(sequence=sequence)))
        for _ in range(10):
            await asyncio.sleep(0)  # the reader of the stream goes on
        self._is_writing = False

    async def read(self) -> pb.ServerMessage:
        return await self._answers.get()

    def add_done_callback(self, callback: Callable[..., None]) -> None:
        pass

    def cancel(self) -> None:
        pass

    async def close(self) -> None:
        pass


async def test_an_agent_answers_a_sync_only_after_the_write_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    channel = _Channel()
    monkeypatch.setattr("bench.agents.own_channel", lambda *_: channel)
    agent = await Agent.connect("", "token")
    writer = Writer(agent, entries=1, content_bytes=1000)
    async with asyncio.timeout(60):
        await writer.write()
        await writer.change()
    assert channel.synced == [1, 2]
    await agent.close()


async def test_an_append_fails_when_its_stream_ends(server: Server) -> None:
    made = await server.create_task(standalone=True)
    agent = await Agent.connect(server.address, made.agent_token)
    try:
        writer = Writer(agent, entries=1, content_bytes=1000)
        await writer.write()
        # A second stream of the task ends the first one.
        other = await Agent.connect(server.address, made.agent_token)
        with pytest.raises(grpc.aio.AioRpcError, match=r"a later session .* has taken over"):
            await _change_until_it_fails(writer)
        await other.close()
    finally:
        await agent.close()


async def _change_until_it_fails(writer: Writer) -> None:
    async with asyncio.timeout(60):
        while True:
            await writer.change()
