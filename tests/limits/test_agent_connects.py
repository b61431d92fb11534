"""An agent that connects too often is refused, before that costs a look at the store."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any
from uuid import UUID

import grpc
import pytest

from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import tasks_pb2
from tasklogs_server.domain.caller import Agent
from tasklogs_server.domain.errors import LimitExceeded, StoreUnavailable
from tasklogs_server.limits import caller_limits
from tasklogs_server.limits.caller_limits import AgentConnects
from tasklogs_server.store.sessions import SessionStore
from tasklogs_server.store.tasks import TaskStore
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.authenticated import bearing
from tests.support.fixtures.moved_clock import Clock
from tests.support.fixtures.refusals import Refusal, refused
from tests.support.fixtures.server import MakeServer, Server

ONE, OTHER = UUID(int=1), UUID(int=2)
GOOD, ROTATED = b"g" * 32, b"r" * 32
AGENT = Agent(ONE, GOOD)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def connects(clock: Clock) -> AgentConnects:
    return AgentConnects(1.0, 3, clock=clock)


def taken(connects: AgentConnects, agent: Agent) -> int:
    for done in range(100):
        try:
            connects.count(agent)
        except LimitExceeded:
            return done
    return 100


def test_a_task_has_one_bucket_for_all_its_tokens(connects: AgentConnects) -> None:
    assert taken(connects, AGENT) == 3
    assert taken(connects, Agent(ONE, ROTATED)) == 0
    assert taken(connects, Agent(OTHER, GOOD)) == 3


def test_one_is_told_when_to_come_again_and_may_then(connects: AgentConnects, clock: Clock) -> None:
    taken(connects, AGENT)
    with pytest.raises(LimitExceeded) as caught:
        connects.count(AGENT)
    later = caught.value.retry_after
    assert later is not None
    assert timedelta(seconds=1) <= later <= timedelta(seconds=2)
    clock.now += later.total_seconds()
    connects.count(AGENT)


def test_a_refused_agent_is_refused_without_a_look_up_until_it_may_connect(
    connects: AgentConnects, clock: Clock
) -> None:
    assert connects.refusal(AGENT) is None
    taken(connects, AGENT)
    refusal = connects.refusal(AGENT)
    assert refusal is not None
    assert refusal.retry_after is not None
    clock.now += 1
    assert connects.refusal(AGENT) is None


def test_a_caller_with_another_token_does_not_learn_of_the_refusal(
    connects: AgentConnects,
) -> None:
    taken(connects, AGENT)
    assert connects.refusal(Agent(ONE, ROTATED)) is None
    assert connects.refusal(Agent(OTHER, GOOD)) is None


def test_agents_that_never_come_back_are_forgotten(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caller_limits, "_REFUSED", 10)
    connects = AgentConnects(1.0, 1, clock=clock)
    for number in range(100):
        agent = Agent(UUID(int=number), GOOD)
        assert taken(connects, agent) == 1
        assert connects.refusal(agent) is not None
        assert len(connects._refused) <= 10


async def test_a_burst_is_accepted_then_the_agent_is_refused_and_its_session_continues(
    make_server: MakeServer,
) -> None:
    async with make_server(agent_connects_per_second=0.01, agent_connects_at_once=3) as server:
        token = (await server.create_task()).agent_token
        other = (await server.create_task("other")).agent_token
        async with AsyncExitStack() as stack:

            async def connect(token: str) -> ScriptedAgent:
                return await stack.enter_async_context(ScriptedAgent.connect(server, token))

            earlier = [await connect(token) for _ in range(2)]
            running = await connect(token)
            for agent in earlier:
                assert (await agent.ended()).reason == "SESSION_SUPERSEDED"

            for _ in range(5):
                said = await refusal_of_connecting(server, token)
                assert said.code is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert said.kinds == ["ErrorInfo", "RetryInfo"]
                assert said.retry_seconds is not None
                assert 50 < said.retry_seconds <= 200

            await running.append([log_entry(0, "undisturbed")], open_epoch=True)
            await running.acked()
            await (await connect(other)).report()
            task = await server.tasks.GetTask(tasks_pb2.GetTaskRequest(task="local/demo"))
            assert task.agent_connected
            assert task.log.entries == 1


async def test_a_refused_agent_costs_the_store_nothing(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_server(agent_connects_per_second=0.01, agent_connects_at_once=1) as server:
        token = (await server.create_task()).agent_token
        async with ScriptedAgent.connect(server, token):
            await refusal_of_connecting(server, token)

            async def away(*_: object, **__: object) -> Any:
                raise StoreUnavailable(timedelta(seconds=1))

            monkeypatch.setattr(SessionStore, "open_session", away)
            monkeypatch.setattr(TaskStore, "token_hash", away)
            said = await refusal_of_connecting(server, token)
            assert said.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            made_up = await refusal_of_connecting(server, f"{token}x")
            assert made_up.code is grpc.StatusCode.UNAVAILABLE
            no_tasks = await refusal_of_connecting(server, "tla_" + "0" * 43)
            assert no_tasks.code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_caller_who_knows_only_the_task_cannot_lock_its_agent_out(
    make_server: MakeServer,
) -> None:
    async with make_server(agent_connects_per_second=0.01, agent_connects_at_once=1) as server:
        token = (await server.create_task()).agent_token
        for _ in range(5):
            said = await refusal_of_connecting(server, f"{token}x")
            assert said.code is grpc.StatusCode.UNAUTHENTICATED
        async with ScriptedAgent.connect(server, token):
            pass


async def test_streams_without_hello_count_too(make_server: MakeServer) -> None:
    async with make_server(agent_connects_per_second=0.01, agent_connects_at_once=2) as server:
        token = (await server.create_task()).agent_token
        silent: list[Any] = [server.agents.Connect(metadata=bearing(token)) for _ in range(3)]
        reading = [asyncio.create_task(refused(call.read())) for call in silent]
        done, waiting = await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
        assert [one.result().code for one in done] == [grpc.StatusCode.RESOURCE_EXHAUSTED]
        assert len(waiting) == 2
        for call in silent:
            call.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_uploads_do_not_count_as_connects(make_server: MakeServer) -> None:
    async with make_server(agent_connects_per_second=0.01, agent_connects_at_once=1) as server:
        token = (await server.create_task()).agent_token
        async with ScriptedAgent.connect(server, token) as agent:
            assert (await refusal_of_connecting(server, token)).retry_seconds is not None
            await agent.goodbye()
        upload = pb.UploadLogSnapshotRequest(format=pb.SNAPSHOT_FORMAT_AGENTAPI)
        upload.data.update({"messages": []})
        await server.agents.UploadLogSnapshot(upload, metadata=bearing(token))


async def refusal_of_connecting(server: Server, token: str) -> Refusal:
    call: Any = server.agents.Connect(metadata=bearing(token))
    return await refused(call.read())
