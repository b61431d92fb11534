"""Agent streams that have not said Hello yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import grpc
import pytest

from tasklogs.publish.stream_status import StreamCall
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs_server.domain.errors import SessionSuperseded
from tasklogs_server.limits.greetings import Greetings
from tests.support.fixtures.agent_stream import ScriptedAgent
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.refusals import refused, refused_stream
from tests.support.fixtures.server import Server

CONNECT = "/tasklogs.v1.TaskAgents/Connect"


async def test_a_third_greeting_of_a_task_ends_the_oldest_and_none_of_another_task() -> None:
    greetings, one, other = Greetings(at_once=2), uuid4(), uuid4()
    ended: list[str] = []

    async def greet(name: str, task: Any) -> None:
        with greetings.of(task) as greeting:
            try:
                async with greeting.within(DEADLINE_SECONDS):
                    await asyncio.Event().wait()
            except SessionSuperseded:
                ended.append(name)
                raise

    waiting = []
    for name, task in (("x", other), ("a", one), ("b", one), ("c", one), ("d", one)):
        waiting.append(asyncio.create_task(greet(name, task), name=name))
        await asyncio.sleep(0)
    results = await asyncio.gather(*waiting[1:3], return_exceptions=True)

    assert ended == ["a", "b"]
    assert all(isinstance(one, SessionSuperseded) for one in results)
    for rest in waiting:
        rest.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_greeting_that_takes_too_long_ends_and_leaves_nothing() -> None:
    greetings, task = Greetings(at_once=1), uuid4()
    for _ in range(3):
        with pytest.raises(TimeoutError), greetings.of(task) as greeting:
            async with greeting.within(0):
                await asyncio.Event().wait()

    assert not greetings._open


def test_a_stream_that_was_superseded_and_ends_last_leaves_the_later_ones_counted() -> None:
    greetings, task = Greetings(at_once=2), uuid4()
    with greetings.of(task):
        pass
    superseded, *ended = (greetings.of(task) for _ in range(3))
    later = [greetings.of(task) for _ in range(2)]
    for greeting in (superseded, *ended):
        greeting.__enter__()
    for greeting in ended:
        greeting.__exit__(None, None, None)
    counted = [greeting.__enter__() for greeting in later]

    superseded.__exit__(None, None, None)

    assert list(greetings._open[task]) == counted


async def test_an_agent_has_few_silent_streams_and_connects_all_the_same(
    server: Server,
) -> None:
    token = (await server.create_task()).agent_token
    other = (await server.create_task("other")).agent_token
    async with AsyncExitStack() as stack:
        silent = await stack.enter_async_context(_silent(server, other))
        streams = [await stack.enter_async_context(_silent(server, token)) for _ in range(3)]

        # Which of them is the oldest is decided when their token has been looked up.
        reads = [asyncio.create_task(refused(stream.read())) for stream in streams]
        [ended], others = await asyncio.wait(reads, return_when=asyncio.FIRST_COMPLETED)
        refusal = ended.result()
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.ABORTED,
            "SESSION_SUPERSEDED",
        )
        async with ScriptedAgent.connect(server, token):
            pass
        await silent.write(pb.AgentMessage(hello=pb.Hello()).SerializeToString())
        assert isinstance(await silent.read(), bytes)
        for read in others:
            read.cancel()
        await asyncio.wait(others)


async def test_a_large_first_message_is_refused(server: Server) -> None:
    token = (await server.create_task()).agent_token
    hello = pb.AgentMessage(hello=pb.Hello(features=["x" * 100] * 50)).SerializeToString()

    async with _silent(server, token) as stream:
        refusal = await refused_stream(stream, hello)

    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELDS",
    )
    assert refusal.fields == ["request"]


@asynccontextmanager
async def _silent(server: Server, token: str) -> AsyncIterator[StreamCall]:
    """Open a stream of bytes that has sent nothing yet."""
    raw: Any = server.channel
    stream = StreamCall(
        raw.stream_stream(CONNECT)(metadata=(("authorization", f"Bearer {token}"),))
    )
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            yield stream
    finally:
        stream.cancel()
