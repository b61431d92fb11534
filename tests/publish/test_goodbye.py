from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import grpc
import pytest
from structlog.testing import capture_logs

from tasklogs.agent.run import Agent, Options
from tasklogs.publish.departure import LeftWithoutGoodbye
from tasklogs.v1 import task_agents_pb2 as pb
from tests.agent.conftest import FAST, until
from tests.support.fakes.agent_server import FakeServer, Refusal
from tests.support.fakes.task_app import FakeTaskApp
from tests.support.fixtures.conditions import DEADLINE_SECONDS


async def started(
    app: FakeTaskApp, server: FakeServer, **changes: float
) -> tuple[Agent, asyncio.Task[None]]:
    settings = replace(FAST, **changes)  # type: ignore[arg-type]
    agent = Agent(Options(server.address, "a-token", app.url), settings)
    return agent, asyncio.create_task(agent.run())


def ends(logged: Sequence[Mapping[str, object]]) -> int:
    """Count the streams that ended."""
    return sum(line["event"] == "stream.ended" for line in logged)


async def test_a_goodbye_comes_after_a_last_sync_and_the_agent_ends(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    agent, task = await started(app, server)
    session = await server.session()
    await until(lambda: server.store.entries)
    app.say("agent", "last words")
    agent.departure.want(pb.Goodbye.REASON_PAUSING)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await task
    assert server.store.contents == ["", "last words"]
    assert session.messages[-1].goodbye.reason == pb.Goodbye.REASON_PAUSING


async def test_a_task_app_that_has_exited_does_not_prevent_the_goodbye(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    agent, task = await started(app, server)
    session = await server.session()
    await until(lambda: server.store.entries)
    await app.stop()
    agent.departure.want(pb.Goodbye.REASON_STOPPING)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await task
    assert session.messages[-1].goodbye.reason == pb.Goodbye.REASON_STOPPING


async def test_a_signal_in_a_wait_is_followed_by_one_attempt_at_once(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    agent, task = await started(
        app, server, backoff_first_seconds=1000.0, backoff_cap_seconds=1000.0
    )
    session = await server.session()
    await until(lambda: server.store.entries)
    with capture_logs() as logged:
        session.end(Refusal(grpc.StatusCode.UNAVAILABLE))
        await until(lambda: ends(logged))
    app.say("agent", "last words")
    agent.departure.want(pb.Goodbye.REASON_PAUSING)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await task
    assert server.store.contents == ["", "last words"]
    assert server.sessions[-1].said_goodbye


async def test_an_agent_without_a_server_leaves_at_once(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    agent, task = await started(app, server, goodbye_timeout_seconds=1000.0)
    await server.session()
    await server.stop()
    agent.departure.want(pb.Goodbye.REASON_PAUSING)
    async with asyncio.timeout(DEADLINE_SECONDS):
        with pytest.raises(LeftWithoutGoodbye, match="failed to connect"):
            await task


async def test_an_agent_whose_source_has_ended_waits_for_a_server(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    agent, task = await started(app, server, goodbye_timeout_seconds=1000.0)
    await server.session()
    await until(lambda: server.store.entries)
    with capture_logs() as logged:
        await server.stop()
        app.say("agent", "last words")
        agent.departure.want(pb.Goodbye.REASON_PAUSING, is_urgent=False)
        await until(lambda: ends(logged) > 2)
    await server.start()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await task
    assert server.store.contents == ["", "last words"]
    assert server.sessions[-1].said_goodbye


async def test_a_superseded_agent_leaves_without_ending_the_other_session(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    agent, task = await started(app, server)
    session = await server.session()
    session.end(Refusal(grpc.StatusCode.ABORTED, "SESSION_SUPERSEDED"))
    await until(lambda: session.is_over)
    agent.departure.want(pb.Goodbye.REASON_PAUSING)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await task
    assert len(server.sessions) == 1


async def test_an_unconfirmed_goodbye_is_abandoned_in_time(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    agent, task = await started(app, server, goodbye_timeout_seconds=0.3)
    await server.session()
    await server.stop()
    agent.departure.want(pb.Goodbye.REASON_PAUSING, is_urgent=False)
    async with asyncio.timeout(DEADLINE_SECONDS):
        with pytest.raises(LeftWithoutGoodbye, match="did not confirm"):
            await task
