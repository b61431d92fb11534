from __future__ import annotations

from tests.agent.conftest import running_agent, until
from tests.fakes.agent_server import FakeServer
from tests.fakes.task_app import FakeTaskApp


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
        assert session.metadata["authorization"] == "Bearer a-token"
        assert len(server.store.epochs) == 1


async def test_a_sync_shows_what_was_posted_before_it(app: FakeTaskApp, server: FakeServer) -> None:
    app.become_ready()
    async with running_agent(app, server):
        session = await server.session()
        for number in range(1, 20):
            app.say("user", f"message {number}")
            answer = await session.sync(number)
            assert answer.HasField("sync_done"), answer
            assert server.store.contents[-1] == f"message {number}"
