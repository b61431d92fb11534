from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tasklogs.agent.run import Agent, Options
from tasklogs.publish.reconnect import Fatal
from tasklogs.v1 import task_agents_pb2 as pb
from tests.agent.conftest import FAST, running_agent, until
from tests.support.fakes.agent_server import FakeServer, Refusal
from tests.support.fakes.faulty_proxy import FaultyProxy
from tests.support.fakes.task_app import FakeTaskApp
from tests.support.fixtures.conditions import DEADLINE_SECONDS


async def test_a_restarted_server_is_found_and_gets_only_what_is_new(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    app.say("user", "before")
    async with running_agent(app, server):
        await until(lambda: len(server.store.entries) == 2)
        await server.stop()
        app.say("agent", "meanwhile")
        await server.start()
        session = await server.session(2)
        await until(lambda: server.store.contents == ["", "before", "meanwhile"])
        assert [len(append.entries) for append in session.appends] == [1]
    assert len(server.store.epochs) == 1


async def test_unacknowledged_appends_are_compared_with_welcome(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    app.say("agent", "abc")
    server.acknowledges = False
    async with running_agent(app, server):
        session = await server.session()
        await until(lambda: len(session.appends) == 1)
        session.end(Refusal(grpc.StatusCode.UNAVAILABLE))
        app.redraw("Xbc")  # the same process: it may
        server.acknowledges = True
        await until(lambda: server.store.contents == ["", "Xbc"])
    assert len(server.store.epochs) == 1


async def test_a_withdrawal_across_a_reconnect_is_one(server: FakeServer) -> None:
    async with FakeTaskApp(interval_seconds=0.005, acp=True) as app:
        app.become_ready()
        app.say("user", "first")
        app.say("agent", "")
        async with running_agent(app, server):
            await until(lambda: len(server.store.entries) == 2)
            await server.stop()
            app.withdraw()
            await server.start()
            await until(lambda: server.store.contents == ["first"])
    assert len(server.store.epochs) == 1


async def test_another_agent_process_withdraws_nothing(server: FakeServer) -> None:
    # It cannot know whether the task app restarted since the stored tail was read.
    async with FakeTaskApp(interval_seconds=0.005, acp=True) as app:
        app.become_ready()
        app.say("user", "first")
        app.say("agent", "")
        async with running_agent(app, server):
            await until(lambda: len(server.store.entries) == 2)
        app.withdraw()
        async with running_agent(app, server):
            await until(lambda: len(server.store.epochs) == 2)
            await until(lambda: server.store.contents == ["first"])


async def test_after_drain_the_agent_reconnects_after_the_given_time(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    slow = replace(FAST, backoff_first_seconds=300.0, backoff_cap_seconds=300.0)
    async with running_agent(app, server, slow):
        session = await server.session()
        delay = Duration()
        delay.FromMilliseconds(100)
        session.send(pb.ServerMessage(drain=pb.Drain(retry_after=delay)))
        began = time.monotonic()
        await server.session(2)
        assert time.monotonic() - began >= 0.1


async def test_a_superseded_agent_stays_away_for_a_while(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    async with running_agent(app, server):
        session = await server.session()
        session.end(Refusal(grpc.StatusCode.ABORTED, "SESSION_SUPERSEDED"))
        began = time.monotonic()
        await server.session(2)
        assert time.monotonic() - began >= 0.3


async def test_a_lost_session_starts_again_from_welcome_at_once(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    slow = replace(FAST, backoff_first_seconds=300.0, backoff_cap_seconds=300.0)
    async with running_agent(app, server, slow):
        session = await server.session()
        await until(lambda: server.store.entries)
        server.store.epochs.clear()  # the store moved under it
        session.end(Refusal(grpc.StatusCode.ABORTED, "SESSION_LOST"))
        await server.session(2)
        await until(lambda: server.store.entries)


async def test_retry_info_is_obeyed(app: FakeTaskApp, server: FakeServer) -> None:
    refusal = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_seconds=0.2)
    server.refusals = [refusal]
    app.become_ready()
    began = time.monotonic()
    async with running_agent(app, server):
        await server.session()
        assert time.monotonic() - began >= 0.2


async def test_a_silent_server_is_abandoned(app: FakeTaskApp, server: FakeServer) -> None:
    server.is_mute = True
    app.become_ready()
    async with running_agent(app, server, replace(FAST, welcome_timeout_seconds=0.1)):
        await until(lambda: server.hellos == 2)
        server.is_mute = False
        await server.session()


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (Refusal(grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND"), "deleted"),
        (Refusal(grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID"), "token"),
        (Refusal(grpc.StatusCode.FAILED_PRECONDITION, "STALE_REPORT"), "newer build"),
    ],
)
async def test_the_agent_exits_when_it_cannot_go_on(
    app: FakeTaskApp, server: FakeServer, refusal: Refusal, said: str
) -> None:
    app.become_ready()
    async with running_agent(app, server) as task:
        session = await server.session()
        session.end(refusal)
        async with asyncio.timeout(DEADLINE_SECONDS):
            with pytest.raises(Fatal, match=said):
                await task


async def test_a_network_that_died_silently_is_noticed(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    settings = replace(FAST, keepalive_seconds=0.1, keepalive_timeout_seconds=0.1)
    async with FaultyProxy(server.port) as network:
        options = Options(network.address, "a-token", app.url)
        task = asyncio.create_task(Agent(options, settings).run())
        try:
            await server.session()
            await until(lambda: server.store.entries)
            network.mute()
            # Nothing is sent in this time: only the pings can notice.
            await until(lambda: network.connections > 1)  # it dials again, into the same silence
            app.say("user", "meanwhile")
            await network.heal()
            await server.session(2)
            await until(lambda: server.store.contents == ["", "meanwhile"])
        finally:
            task.cancel()
            await asyncio.wait({task})
    assert len(server.store.epochs) == 1


async def test_a_stream_that_the_server_closes_in_order_is_opened_again(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    async with running_agent(app, server):
        session = await server.session()
        session.end(Refusal(grpc.StatusCode.OK))
        await server.session(2)


async def test_the_build_number_is_sent(app: FakeTaskApp, server: FakeServer) -> None:
    async with running_agent(app, server, build_number=7):
        session = await server.session()
        assert session.hello.build_number == 7
