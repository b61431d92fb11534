"""What AgentAPI does, item by item, and what a whole agent makes of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import types_pb2
from tests.agent.conftest import FAST, patient, running_agent, until
from tests.support.fakes.agent_server import FakeServer
from tests.support.fakes.http_server import Response
from tests.support.fakes.task_app import FakeTaskApp, speaks_nonsense, tears, with_role
from tests.support.fixtures.conditions import DEADLINE_SECONDS

HEALTHY = types_pb2.APP_HEALTH_HEALTHY
INITIALIZING = types_pb2.APP_HEALTH_INITIALIZING


async def test_what_the_task_app_shows_is_stored(app: FakeTaskApp, server: FakeServer) -> None:
    app.redraw("banner")
    app.become_ready()
    async with running_agent(app, server):
        session = await server.session()
        app.say("user", "hello")
        await until(lambda: server.store.contents == ["banner", "hello"])
        app.say("agent", "an")
        app.grow(" answer")
        await until(lambda: server.store.contents == ["banner", "hello", "an answer"])
        assert session.hello.task_app == "agentapi"
        assert session.hello.agent_version
        assert not session.hello.HasField("build_number")
        assert session.metadata["authorization"] == "Bearer a-token"
    assert [entry.id for entry in server.store.entries] == [0, 1, 2]
    assert len(server.store.epochs) == 1


async def test_times_arrive_with_their_nanoseconds(app: FakeTaskApp, server: FakeServer) -> None:
    app.become_ready()
    app.say("user", "hello")
    async with running_agent(app, server):
        await until(lambda: len(server.store.entries) == 2)
    nanos = app.tail.time.removesuffix("Z").partition(".")[2].ljust(9, "0")
    assert server.store.entries[-1].time.nanos == int(nanos)


async def test_a_redrawn_tail_ends_as_shown(app: FakeTaskApp, server: FakeServer) -> None:
    app.become_ready()
    app.say("user", "draw")
    app.say("agent", "")
    async with running_agent(app, server):
        await until(lambda: len(server.store.entries) == 3)
        for number in range(100):
            app.redraw(f"frame {number}\n" + "#" * (number % 7))
            app.tick()
        await until(lambda: server.store.contents[-1].startswith("frame 99"))
        assert server.store.contents[-1] == app.tail.content
    assert len(server.store.epochs) == 1


async def test_a_banner_is_never_stored_as_the_saved_conversation(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    app.say("user", "before")
    await app.restart(with_state=True)
    app.redraw("banner")
    async with running_agent(app, server):
        session = await server.session()
        await until(lambda: session.health == INITIALIZING)
        failed = await session.sync(1)
        assert "starting" in failed.sync_failed.reason
        assert server.store.epochs == []
        app.become_ready()
        await until(lambda: server.store.contents == ["", "before"])
        await until(lambda: session.health == HEALTHY)
    assert len(server.store.epochs) == 1


async def test_a_list_that_was_requested_before_stable_is_not_the_conversation(
    app: FakeTaskApp, server: FakeServer
) -> None:
    """It shows the banner, and it arrives after `stable`."""
    app.become_ready()
    app.say("user", "before")
    await app.restart(with_state=True)
    app.redraw("banner")
    made, release = asyncio.Event(), asyncio.Event()

    async def late(response: Response) -> Response:
        made.set()
        await release.wait()
        return response

    app.faults["/messages"] = [late]
    async with running_agent(app, server):
        session = await server.session()
        await made.wait()
        app.become_ready()
        await until(lambda: session.health == HEALTHY)
        release.set()
        await until(lambda: server.store.contents == ["", "before"])
    assert len(server.store.epochs) == 1


async def test_a_users_message_makes_a_process_ready(app: FakeTaskApp, server: FakeServer) -> None:
    # A task app whose screen keeps changing never says `stable`.
    async with running_agent(app, server):
        session = await server.session()
        await until(lambda: session.health == INITIALIZING)
        app.say("user", "hello")
        await until(lambda: server.store.contents == ["", "hello"])
        await until(lambda: session.health == HEALTHY)


async def test_stable_before_the_saved_state_is_shown_opens_no_epoch(
    server: FakeServer,
) -> None:
    # AgentAPI emits the status first and the messages a moment later.
    async with FakeTaskApp(interval_seconds=60) as app:
        app.redraw("banner")
        app.tick()
        app.say("user", "saved")
        app.status = "stable"
        app._emitted_status = "stable"
        async with running_agent(app, server):
            await until(lambda: server.store.contents == ["banner", "saved"])
            assert len(server.store.epochs) == 1


async def test_a_restart_with_saved_state_goes_on_in_the_same_epoch(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    app.say("user", "hello")
    app.say("agent", "answer")
    async with running_agent(app, server):
        session = await server.session()
        await until(lambda: len(server.store.entries) == 3)
        await app.restart(with_state=True)
        app.redraw("banner")
        await until(lambda: session.health == INITIALIZING)
        app.become_ready()
        app.say("user", "again")
        await until(lambda: server.store.contents == ["", "hello", "answer", "again"])
    assert len(server.store.epochs) == 1


async def test_a_restart_without_saved_state_opens_the_next_epoch(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    app.say("user", "hello")
    async with running_agent(app, server):
        await until(lambda: len(server.store.entries) == 2)
        await app.restart(with_state=False)
        app.redraw("banner")
        app.become_ready()
        await until(lambda: server.store.contents == ["banner"])
    assert [len(epoch.entries) for epoch in server.store.epochs] == [2, 1]


async def test_an_answer_that_comes_back_older_opens_the_next_epoch(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    app.say("user", "hello")
    app.say("agent", "half an answer")
    async with running_agent(app, server):
        await until(lambda: len(server.store.entries) == 3)
        await app.restart(with_state=True, older_tail="half")
        app.become_ready()
        await until(lambda: len(server.store.epochs) == 2)
        await until(lambda: server.store.contents == ["", "hello", "half"])


async def test_a_failed_prompt_over_acp_is_withdrawn_and_its_id_stays_unused(
    server: FakeServer,
) -> None:
    async with FakeTaskApp(interval_seconds=0.005, acp=True) as app:
        app.become_ready()
        async with running_agent(app, server):
            session = await server.session()
            app.say("user", "first")
            app.say("agent", "")
            await until(lambda: len(server.store.entries) == 2)
            app.withdraw()
            assert (await session.sync(1)).HasField("sync_done")
            assert server.store.contents == ["first"]
            app.say("user", "second")
            await until(lambda: server.store.contents == ["first", "second"])
        assert [entry.id for entry in server.store.entries] == [0, 2]
    assert len(server.store.epochs) == 1


async def test_an_event_from_before_a_withdrawal_changes_nothing(
    server: FakeServer,
) -> None:
    async with FakeTaskApp(interval_seconds=60, acp=True) as app:
        app.become_ready()
        app.say("user", "first")
        app.say("agent", "")
        async with running_agent(app, server):
            session = await server.session()
            assert (await session.sync(1)).HasField("sync_done")
            assert server.store.contents == ["first", ""]
            late = app.tail
            app.withdraw()
            async with app.handling_post():
                fetches = app.fetches
                session.send(pb.ServerMessage(sync=pb.Sync(id=2)))
                await until(lambda: app.fetches > fetches)
                app.emit_stale(late)
                app.emit_stale(app.tail)
                await until(lambda: app.queued == 0)
            assert (await session.answer(2)).HasField("sync_done")
            assert server.store.contents == ["first"]


async def test_a_withdrawal_that_no_event_told_of_is_seen_before_the_next_message_is_stored(
    server: FakeServer,
) -> None:
    async with FakeTaskApp(interval_seconds=0.005, acp=True) as app:
        app.become_ready()
        async with running_agent(app, server):
            app.say("user", "first")
            app.say("agent", "")
            await until(lambda: len(server.store.entries) == 2)
            app.withdraw()
            app.say("user", "second")
            await until(lambda: server.store.contents == ["first", "second"])
    assert len(server.store.epochs) == 1


async def test_an_answer_over_acp_that_loses_its_trailing_space_is_stored_without_it(
    server: FakeServer,
) -> None:
    async with FakeTaskApp(interval_seconds=0.005, acp=True) as app:
        app.become_ready()
        async with running_agent(app, server):
            app.say("user", "hi")
            app.say("agent", "answer \n")
            app.status = "running"
            await until(lambda: server.store.contents == ["hi", "answer \n"])
            app.redraw("answer")
            app.status = "stable"
            await until(lambda: server.store.contents == ["hi", "answer"])
    assert len(server.store.epochs) == 1


async def test_stale_events_change_nothing(app: FakeTaskApp, server: FakeServer) -> None:
    app.become_ready()
    app.say("user", "hello")
    app.say("agent", "an answer")
    async with running_agent(app, server):
        session = await server.session()
        await until(lambda: len(server.store.entries) == 3)
        stale = app.tail
        app.grow(" that grew")
        await until(lambda: server.store.contents[-1] == "an answer that grew")
        revision = server.store.revision
        app.emit_stale(stale)
        app.emit_stale(app.messages[1])
        await session.sync(1)
        assert server.store.revision == revision
    assert len(server.store.epochs) == 1


async def test_a_read_while_a_post_is_handled_takes_the_events_instead(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    # A sync that waits for the read, which the POST holds up, waits longer than this test does.
    settings = replace(FAST, sync_timeout_seconds=2 * DEADLINE_SECONDS)
    async with running_agent(app, server, settings):
        session = await server.session()
        app.say("user", "hello")
        app.tick()
        async with app.handling_post():
            answer = await session.sync(1)
            assert answer.HasField("sync_done"), answer
            assert server.store.contents == ["", "hello"]
    assert len(server.store.epochs) == 1


async def test_a_burst_that_lags_behind_messages_withdraws_nothing(
    server: FakeServer,
) -> None:
    # `/events` pauses while a POST is handled, up to 25 ms behind `/messages`.
    async with FakeTaskApp(interval_seconds=60) as app:
        app.become_ready()
        app.tick()
        async with running_agent(app, server):
            session = await server.session()
            app.say("user", "hello")
            app.say("agent", "answer")
            assert (await session.sync(1)).HasField("sync_done")
            assert server.store.contents == ["", "hello", "answer"]
            async with app.handling_post():
                assert (await session.sync(2)).HasField("sync_done")
            assert server.store.contents == ["", "hello", "answer"]
    assert len(server.store.epochs) == 1


async def test_a_subscriber_that_was_dropped_silently_reconnects_at_once(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    async with running_agent(app, server):
        await until(lambda: app.subscribers == 1)
        await until(lambda: server.store.entries)
        app.drop_subscribers()
        app.say("user", "while nobody listened")
        app.tick()
        await until(lambda: server.store.contents == ["", "while nobody listened"])
        await until(lambda: app.subscribers == 1)
        app.grow("!")
        await until(lambda: server.store.contents[-1].endswith("!"))
    assert len(server.store.epochs) == 1


async def test_more_events_than_a_subscription_holds_lose_nothing(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    app.say("user", "write")
    app.say("agent", "0")
    async with running_agent(app, server):
        await until(lambda: len(server.store.entries) == 3)
        for number in range(3000):
            app.grow(f" {number}")
            app.tick()  # without a turn for the agent: its subscription overflows
        await until(lambda: server.store.contents[-1] == app.tail.content)
    assert len(server.store.epochs) == 1


async def test_a_torn_read_is_retried_once(app: FakeTaskApp, server: FakeServer) -> None:
    app.become_ready()
    app.say("user", "hello")
    async with running_agent(app, server):
        session = await server.session()
        await until(lambda: len(server.store.entries) == 2)
        for number, fault in enumerate([tears, with_role("")], start=1):
            app.fail_next("/messages", fault)
            assert (await session.sync(number)).HasField("sync_done")
            assert not app.faults["/messages"]


async def test_a_read_that_is_torn_twice_is_an_error(app: FakeTaskApp, server: FakeServer) -> None:
    app.become_ready()
    app.say("user", "hello")
    async with running_agent(app, server, patient(probe_interval_seconds=30)):
        session = await server.session()
        await until(lambda: len(server.store.entries) == 2)
        app.fail_next("/messages", tears, times=1000)
        assert "broke" in (await session.sync(1)).sync_failed.reason
        app.faults.clear()
        app.fail_next("/messages", with_role(""), times=1000)
        assert "empty role" in (await session.sync(2)).sync_failed.reason
        assert session.health == HEALTHY


async def test_broken_connections_of_the_same_process_are_no_restart(
    app: FakeTaskApp, server: FakeServer
) -> None:
    # All but one: the idle connection stays open.
    app.become_ready()
    app.say("agent", "abc")
    async with running_agent(app, server):
        await until(lambda: len(server.store.entries) == 2)
        app.drop_subscribers()
        app.redraw("Xbc")
        await until(lambda: server.store.contents[-1] == "Xbc")
    assert len(server.store.epochs) == 1


async def test_once_every_connection_broke_a_tail_that_does_not_extend_opens_an_epoch(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    app.say("agent", "abc")
    async with running_agent(app, server):
        await until(lambda: len(server.store.entries) == 2)
        app.drop_connections()
        app.redraw("Xbc")
        await until(lambda: len(server.store.epochs) == 2)
        await until(lambda: server.store.contents == ["", "Xbc"])


async def test_ids_that_start_over_open_an_epoch(app: FakeTaskApp, server: FakeServer) -> None:
    app.become_ready()
    app.say("user", "hello")
    async with running_agent(app, server):
        session = await server.session()
        await until(lambda: len(server.store.entries) == 2)
        app.start_over("other")
        assert (await session.sync(1)).HasField("sync_done")
        assert server.store.contents == ["other"]
    assert len(server.store.epochs) == 2


async def test_an_agent_that_starts_before_the_task_app_waits_for_it(server: FakeServer) -> None:
    app = FakeTaskApp(interval_seconds=0.005)
    await app.start()
    port_holder = app.url
    await app.stop()
    async with running_agent(app, server, patient(unhealthy_after_seconds=30)):
        session = await server.session()
        await until(lambda: session.health == INITIALIZING)
        reason = (await session.sync(1)).sync_failed.reason
        assert "connection refused" in reason
        assert port_holder.rpartition(":")[2] not in reason
        await app.start()
        app.become_ready()
        app.say("user", "hello")
        await until(lambda: server.store.contents == ["", "hello"])
        await until(lambda: session.health == HEALTHY)
    await app.stop()


async def test_a_first_list_that_could_not_be_read_is_read_later(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    app.say("user", "hello")
    app.fail_next("/messages", speaks_nonsense, times=3)
    async with running_agent(app, server):
        await until(lambda: server.store.contents == ["", "hello"])


async def test_a_message_of_5_mb_is_stored_with_its_end(
    app: FakeTaskApp, server: FakeServer
) -> None:
    app.become_ready()
    text = "0123456789" * 500_000
    app.say("agent", text)
    async with running_agent(app, server):
        await until(lambda: len(server.store.entries) == 2)
        stored = server.store.entries[-1]
        assert stored.dropped_bytes + len(stored.content) == len(text)
        assert text.endswith(stored.content.decode())
        app.grow("more")
        await until(lambda: server.store.contents[-1].endswith("more"))
        stored = server.store.entries[-1]
        assert stored.dropped_bytes + len(stored.content) == len(text) + 4


async def test_surrogates_and_nul_come_through(app: FakeTaskApp, server: FakeServer) -> None:
    app.become_ready()
    app.say("agent", "nul \x00 and \ud800 and \U0001f600 and \u2028 line")
    async with running_agent(app, server):
        expected = "nul \x00 and \ufffd and \U0001f600 and \u2028 line"
        await until(lambda: server.store.contents[1:] == [expected])
        app.grow("\x00")
        await until(lambda: server.store.contents[1:] == [expected + "\x00"])
    await asyncio.sleep(0)
