"""Two servers, or two agents, that both believe they own the same task. No notes pass."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from tasklogs.agent.run import Agent, Options
from tasklogs.errors import TaskLogsRpcError
from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import tasks_pb2
from tasklogs_server.ingest import session_audit
from tests.agent.conftest import FAST
from tests.support.fakes.faulty_proxy import Direction, FaultyProxy
from tests.support.fakes.task_app import FakeTaskApp
from tests.support.fixtures.agent_stream import Ended, ScriptedAgent, log_entry
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until
from tests.support.fixtures.reports import TASK, report_agent, report_build
from tests.support.fixtures.server import MakeServer, Server

pytestmark = pytest.mark.usefixtures("no_notes")

SUPERSEDED = (grpc.StatusCode.ABORTED, "SESSION_SUPERSEDED")


@pytest.fixture
async def app() -> AsyncIterator[FakeTaskApp]:
    async with FakeTaskApp(interval_seconds=0.005) as fake:
        fake.become_ready()
        yield fake


@asynccontextmanager
async def reached_over(network: FaultyProxy, server: Server) -> AsyncIterator[Server]:
    async with grpc.aio.insecure_channel(network.address) as channel:
        yield Server(network.address, server.dsn, channel)


def port_of(server: Server) -> int:
    return int(server.address.rpartition(":")[2])


async def read(
    server: Server, source: pb.LogSource.ValueType = pb.LOG_SOURCE_SNAPSHOT
) -> pb.GetTaskLogsResponse:
    return await server.logs.GetTaskLogs(pb.GetTaskLogsRequest(task=TASK, source=source))


async def stored(server: Server) -> list[str]:
    return [one.content for one in (await read(server)).logs]


async def refused_late_append(
    network: FaultyProxy, first: ScriptedAgent, second: ScriptedAgent
) -> Ended:
    """Let a second agent take over, then the first one append. Return the first one's refusal."""
    network.mute(Direction.TO_TARGET)
    await first.append([log_entry(1, "late")])
    await until(lambda: network.held_bytes > 0)
    await second.append([log_entry(1, "by the second")])
    await second.acked()
    await network.heal()
    return await first.ended()


async def test_a_superseded_server_stores_no_late_append_and_tells_its_agent(
    make_server: MakeServer,
) -> None:
    async with make_server() as one, make_server() as other, FaultyProxy(port_of(one)) as network:
        token = (await one.create_task()).agent_token
        await report_build(one)
        async with (
            reached_over(network, one) as one_over_it,
            ScriptedAgent.connect(one_over_it, token) as first,
        ):
            await first.append([log_entry(0, "before")], open_epoch=True)
            await first.acked()
            async with ScriptedAgent.connect(other, token) as second:
                assert second.welcome.session > first.welcome.session
                ended = await refused_late_append(network, first, second)
                assert (ended.code, ended.reason) == SUPERSEDED
                assert first.acks == [1]
                for server in (one, other):
                    assert await stored(server) == ["before", "by the second"]
                await second.append([log_entry(2, "and on")])
                await second.acked()
        assert await stored(one) == ["before", "by the second", "and on"]


async def test_a_token_rotated_at_one_server_can_no_longer_write_at_the_other(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_audit, "AUDIT_SECONDS", 3600)  # the commit finds out
    async with make_server() as one, make_server() as other:
        token = (await one.create_task()).agent_token
        async with ScriptedAgent.connect(one, token) as agent:
            await agent.append([log_entry(0, "before")], open_epoch=True)
            await agent.acked()
            await other.tasks.RotateAgentToken(tasks_pb2.RotateAgentTokenRequest(task=TASK))
            await agent.append([log_entry(1, "by a thief")])
            ended = await agent.ended()
        assert (ended.code, ended.reason) == SUPERSEDED
        assert agent.acks == [1]
        assert await stored(one) == ["before"]


async def test_a_live_read_at_a_superseded_server_does_not_ask_its_old_agent(
    make_server: MakeServer,
) -> None:
    async with (
        make_server(agent_wait="0.3") as one,
        make_server() as other,
        FaultyProxy(port_of(one)) as network,
    ):
        token = (await one.create_task()).agent_token
        await report_build(one)
        await report_agent(one)
        async with (
            reached_over(network, one) as one_over_it,
            ScriptedAgent.connect(one_over_it, token) as first,
            ScriptedAgent.connect(other, token) as second,
        ):
            first.answer_syncs()
            second.answer_syncs()
            network.mute()
            await second.append([log_entry(0, "shown")], open_epoch=True)
            await second.acked()
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await read(one, pb.LOG_SOURCE_LIVE)
            assert TaskLogsRpcError.from_rpc_error(raised.value).reason == "AGENT_UNREACHABLE"
            live = await read(other, pb.LOG_SOURCE_LIVE)
            assert [entry.content for entry in live.logs] == ["shown"]


async def test_an_agent_that_connects_twice_stores_everything_once(
    app: FakeTaskApp, make_server: MakeServer
) -> None:
    """Whichever agent has the fence, both see the same task app and the same store."""
    async with make_server() as server:
        made = await server.create_task()
        await report_build(server)
        options = Options(server.address, made.agent_token, app.url)
        agents = [asyncio.create_task(Agent(options, FAST).run()) for _ in range(2)]
        try:
            for number in range(12):
                app.say("user" if number % 2 else "agent", f"message {number}")
                live = await read_until_answered(server)
                assert [one.content for one in live.logs] == [
                    message.content for message in app.messages
                ]
                app.grow(" and more")
                await asyncio.sleep(0.1)  # they take turns every 0.3 to 0.4 s
        finally:
            for agent in agents:
                agent.cancel()
            await asyncio.wait(agents)
        assert not any(agent.done() and not agent.cancelled() for agent in agents)
        assert (await read(server)).epoch == 1


async def read_until_answered(server: Server) -> pb.GetTaskLogsResponse:
    """Read live, and try again while the session moves between the agents."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            try:
                return await read(server, pb.LOG_SOURCE_LIVE)
            except grpc.aio.AioRpcError as error:
                refusal = TaskLogsRpcError.from_rpc_error(error)
                if refusal.reason not in ("AGENT_UNREACHABLE", "TASK_STATE_CONFLICT"):
                    raise
