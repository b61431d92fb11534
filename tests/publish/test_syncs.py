from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tasklogs.v1 import task_agents_pb2 as pb
from tests.agent.conftest import FAST, running_agent, until
from tests.support.fakes.agent_server import FakeServer
from tests.support.fakes.task_app import FakeTaskApp, fails, hangs, speaks_nonsense, with_role

PATIENT = replace(FAST, fetch_fallback_seconds=300.0, sync_timeout_seconds=300.0)
"""With a fetch that hangs longer than any test waits."""


async def test_a_sync_shows_what_was_said_before_it(app: FakeTaskApp, server: FakeServer) -> None:
    app.become_ready()
    async with running_agent(app, server):
        session = await server.session()
        for number in range(1, 30):
            app.say("user", f"message {number}")
            answer = await session.sync(number)
            assert answer.HasField("sync_done"), answer
            assert server.store.contents[-1] == f"message {number}"


async def test_a_sync_that_arrives_during_a_fetch_gets_its_own_fetch(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    async with running_agent(app, server, PATIENT):
        session = await server.session()
        await until(lambda: server.store.entries and app.subscribers)
        for number in (1, 2):  # the fetches that the first statuses cause are over then
            session.send(pb.ServerMessage(sync=pb.Sync(id=number)))
            await session.answer(number)
        async with app.handling_post():
            fetches = app.fetches
            session.send(pb.ServerMessage(sync=pb.Sync(id=3)))
            await until(lambda: app.fetches > fetches)
            session.send(pb.ServerMessage(sync=pb.Sync(id=4)))
            session.send(pb.ServerMessage(sync=pb.Sync(id=5)))
        for number in (3, 4, 5):
            assert (await session.answer(number)).HasField("sync_done")
        # One for the first and one for the two that came during it; possibly one that a status
        # caused.
        assert app.fetches <= fetches + 3


async def test_a_sync_does_not_wait_for_a_fetch_that_a_status_began(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    async with running_agent(app, server, PATIENT):
        session = await server.session()
        await until(lambda: server.store.entries)
        app.fail_next("/messages", hangs)
        fetches = app.fetches
        app.status = "running"
        await until(lambda: app.fetches > fetches)
        answer = await session.sync(1)
        assert answer.HasField("sync_done")


async def test_sync_done_comes_after_the_appends_that_it_rests_on(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    app.say("user", "one")
    server.acknowledges = False
    async with running_agent(app, server):
        session = await server.session()
        await until(lambda: len(session.appends) == 1)
        app.say("agent", "two")
        session.send(pb.ServerMessage(sync=pb.Sync(id=7)))
        fetches = app.fetches
        await until(lambda: app.fetches > fetches)
        await asyncio.sleep(0.05)  # for an answer that must not come
        assert not any(message.HasField("sync_done") for message in session.messages)
        session.ack(1)
        await session.answer(7)
        kinds = [message.WhichOneof("message") for message in session.messages]
        assert kinds.index("sync_done") > len(kinds) - 1 - kinds[::-1].index("append")
        assert session.appends[-1].entries[0].content == "two"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (fails, "/messages: HTTP 500 Internal Server Error"),
        (speaks_nonsense, "/messages: not JSON"),
        (with_role("robot"), "/messages: message 1 has an unknown role"),
    ],
)
async def test_a_sync_fails_with_the_task_apps_failure_without_content(
    app: FakeTaskApp, server: FakeServer, fault: object, said: str
) -> None:
    app.become_ready()
    app.say("user", "a secret")
    async with running_agent(app, server):
        session = await server.session()
        await until(lambda: len(server.store.entries) == 2)
        app.fail_next("/messages", fault, times=1000)  # type: ignore[arg-type]
        assert (await session.sync(1)).sync_failed.reason == said
        app.faults.clear()
        assert (await session.sync(2)).HasField("sync_done")


async def test_a_sync_of_a_task_app_that_hangs_fails_in_time(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    async with running_agent(app, server, replace(FAST, sync_timeout_seconds=1.0)):
        session = await server.session()
        await until(lambda: server.store.entries)
        app.fail_next("/messages", hangs, times=1000)
        app.fail_next("/events", hangs, times=1000)
        assert (await session.sync(1)).sync_failed.reason == "no response within 1 s"
        app.faults.clear()
        assert (await session.sync(2)).HasField("sync_done")


async def test_a_fresh_event_stream_that_contradicts_does_not_replace_the_fetch(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    app.say("user", "hello")
    async with running_agent(app, server):
        session = await server.session()
        await until(lambda: len(server.store.entries) == 2)
        async with app.handling_post():
            app.start_over("other", "more")
            app.tick()
            before = app.subscriptions
            session.send(pb.ServerMessage(sync=pb.Sync(id=1)))
            await until(lambda: app.subscriptions > before and app.subscribers == 1)
            assert server.store.contents == ["", "hello"]
            assert not any(message.HasField("sync_done") for message in session.messages)
        assert (await session.answer(1)).HasField("sync_done")
        assert server.store.contents == ["other", "more"]
    assert len(server.store.epochs) == 2


async def test_a_fresh_event_stream_that_fails_does_not_shorten_the_fetch(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    async with running_agent(app, server):
        session = await server.session()
        await until(lambda: server.store.entries)
        app.fail_next("/events", fails)
        app.say("user", "hello")
        async with app.handling_post():
            session.send(pb.ServerMessage(sync=pb.Sync(id=1)))
            await until(lambda: not app.faults["/events"])
        assert (await session.answer(1)).HasField("sync_done")
        assert server.store.contents[-1] == "hello"
