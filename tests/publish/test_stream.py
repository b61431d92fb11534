"""The agent's side of the stream: one append at a time, as deltas, within the limits."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

from tasklogs.v1 import task_agents_pb2 as pb
from tests.agent.conftest import FAST, running_agent, until
from tests.support.fakes.agent_server import FakeServer
from tests.support.fakes.task_app import FakeTaskApp, fails, hangs


async def test_one_append_is_under_way_and_later_changes_are_sent_after_its_ack(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    app.say("user", "write")
    app.say("agent", "0")
    server.acknowledges = False
    async with running_agent(app, server):
        session = await server.session()
        await until(lambda: len(session.appends) == 1)
        for number in range(1, 51):
            app.grow(f" {number}")
            app.tick()
        app.say("user", "next")
        app.say("agent", "answer")
        app.tick()
        await app_seen(app, session)
        assert len(session.appends) == 1
        session.ack(1)
        await until(lambda: len(session.appends) == 2)
        second = session.appends[1]
        assert second.sequence == 2
        [piece] = second.tail.content.pieces
        assert piece.bytes == 1
        assert piece.text.endswith(" 49 50")
        assert [entry.content for entry in second.entries] == ["next", "answer"]
        assert server.store.contents[-1] == "answer"


async def app_seen(app: FakeTaskApp, session: object) -> None:
    """Wait until the agent has read the events up to now: it fetches on this status change."""
    fetches = app.fetches
    app.status = "running" if app.status == "stable" else "stable"
    app.tick()
    await until(lambda: app.fetches > fetches)


async def test_the_first_change_is_sent_at_once(app: FakeTaskApp, server: FakeServer) -> None:
    app.become_ready()
    app.say("user", "write")
    took_seconds = []
    async with running_agent(app, server):
        session = await server.session()
        await until(lambda: len(session.appends) == 1)
        # Several: a busy machine holds up some of them, a delay would hold up all.
        for number in range(2, 7):
            began = time.monotonic()
            app.say("agent", "a")
            app.tick()
            await until(partial(lambda count: len(session.appends) == count, number))
            took_seconds.append(time.monotonic() - began)
    assert min(took_seconds) < 0.5


async def test_a_long_conversation_is_split_and_each_part_waits_for_its_ack(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    for number in range(200):
        app.say("user" if number % 2 == 0 else "agent", f"{number} " + "x" * 1000)
    server.append_bytes = 10_000
    server.acknowledges = False
    async with running_agent(app, server):
        session = await server.session()
        while len(server.store.entries) < 201:
            count = len(session.appends)
            session.ack(count)
            await until(lambda count=count: len(session.appends) == count + 1)  # type: ignore[misc]
        assert [append.open_epoch for append in session.appends] == [True] + [False] * count
        assert 20 <= count <= 25
        assert max(append.ByteSize() for append in session.appends) <= 10_200
    assert server.store.contents == [message.content for message in app.messages]


async def test_an_answer_that_grows_to_100_kb_costs_at_most_1_2_times_its_length(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    app.say("user", "write")
    app.say("agent", "")
    async with running_agent(app, server):
        session = await server.session()
        await until(lambda: len(server.store.entries) == 3)
        before = session.received_bytes
        for number in range(100):
            app.grow(f"{number:04} " + "y" * 1018 + "\n")
            app.tick()
            length = len(app.tail.content)
            await until(lambda length=length: len(server.store.contents[-1]) == length)  # type: ignore[misc]
        moved = session.received_bytes - before
        assert moved <= 1.2 * length


async def test_a_reconnect_to_10_000_entries_moves_less_than_100_kb(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    for number in range(10_000):
        app.say("user" if number % 2 == 0 else "agent", f"{number} " + "x" * 200)
    patient = replace(FAST, fetch_fallback_seconds=10.0, sync_timeout_seconds=20.0)
    async with running_agent(app, server, patient):
        await until(lambda: len(server.store.entries) == 10_001)
    async with running_agent(app, server, patient):
        session = await server.session(2)
        assert (await session.sync(1)).HasField("sync_done")
        app.say("user", "new")
        await until(lambda: server.store.contents[-1] == "new")
        assert session.received_bytes < 1000
    assert len(server.store.epochs) == 1


async def test_state_is_reported_at_connect_on_change_and_when_asked(
    app: FakeTaskApp, server: FakeServer
) -> None:
    async with running_agent(app, server):
        session = await server.session()
        await until(lambda: len(states(session.messages)) == 1)
        app.become_ready()
        await until(lambda: len(states(session.messages)) == 2)
        session.send(pb.ServerMessage(report_state=pb.ReportState()))
        await until(lambda: len(states(session.messages)) == 3)
        assert states(session.messages) == [(3, 2), (3, 3), (3, 3)]


def states(messages: list[pb.AgentMessage]) -> list[tuple[int, int]]:
    """Return lifecycle and health of each report."""
    return [
        (message.state.lifecycle, message.state.app_health)
        for message in messages
        if message.HasField("state")
    ]


async def test_a_task_app_that_fails_for_long_is_unhealthy_until_its_first_good_answer(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    app.say("user", "hello")
    async with running_agent(app, server):
        session = await server.session()
        await until(lambda: len(server.store.entries) == 2)
        app.fail_next("/messages", fails, times=1_000_000)
        reason = (await session.sync(1)).sync_failed.reason
        assert "HTTP 500" in reason
        assert "boom" not in reason
        await until(lambda: states(session.messages)[-1] == (3, 4))
        app.faults.clear()
        await until(lambda: states(session.messages)[-1] == (3, 3))


async def test_a_task_app_that_is_gone_for_long_is_unhealthy(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    app.say("user", "hello")
    async with running_agent(app, server):
        session = await server.session()
        await until(lambda: len(server.store.entries) == 2)
        await app.stop()
        await until(lambda: states(session.messages)[-1] == (3, 4))


async def test_a_task_app_that_hangs_stays_healthy(app: FakeTaskApp, server: FakeServer) -> None:
    app.become_ready()
    app.say("user", "hello")
    async with running_agent(
        app, server, replace(FAST, unhealthy_after_seconds=0.05, sync_timeout_seconds=0.5)
    ):
        session = await server.session()
        await until(lambda: len(server.store.entries) == 2)
        app.fail_next("/messages", hangs, times=100)
        app.fail_next("/events", hangs, times=100)
        for number in range(1, 3):
            assert "no response" in (await session.sync(number)).sync_failed.reason
        assert states(session.messages)[-1] == (3, 3)


async def test_an_append_says_how_long_the_oldest_of_its_changes_has_waited(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    app.say("user", "write")
    server.acknowledges = False
    async with running_agent(app, server):
        session = await server.session()
        await until(lambda: len(session.appends) == 1)
        app.say("agent", "a")
        app.tick()
        await app_seen(app, session)
        seen = time.monotonic()
        await until(lambda: time.monotonic() - seen > 0.1)
        session.ack(1)
        await until(lambda: len(session.appends) == 2)
        answered = time.monotonic()
        session.ack(2)
        app.say("user", "next")
        app.tick()
        await until(lambda: len(session.appends) == 3)

    assert session.appends[1].waited_ms >= 50
    # Changes that were sent no longer count.
    later_ms = (time.monotonic() - answered) * 1000
    assert session.appends[2].waited_ms <= later_ms
