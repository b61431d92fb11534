"""An agent and followers behind a real nginx, whose limits are at their defaults."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from tasklogs import (
    Follow,
    LogSource,
    Progress,
    Reconnected,
    Reconnecting,
    ReconnectWaits,
    TaskLogsClient,
)
from tasklogs.agent.run import Agent, Options
from tests.agent.conftest import FAST
from tests.cli.command import Finished, run
from tests.support.fakes.faulty_proxy import FaultyProxy
from tests.support.fakes.task_app import FakeTaskApp
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until
from tests.support.fixtures.nginx import Nginx, needs_nginx
from tests.support.fixtures.server import Server

pytestmark = needs_nginx

SOON = ReconnectWaits(first=timedelta(milliseconds=2), cap=timedelta(milliseconds=10))
LONG = timedelta(seconds=DEADLINE_SECONDS)
TOO_LARGE = "client intended to send too large chunked body"
STATUSES = [401, 403, 404, 429, 502]
OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"


@pytest.fixture
async def app() -> AsyncIterator[FakeTaskApp]:
    async with FakeTaskApp(interval_seconds=0.005) as fake:
        fake.become_ready()
        yield fake


@pytest.fixture
def nginx(server: Server, tmp_path: Path) -> Iterator[Nginx]:
    with Nginx(server.address, tmp_path) as running:
        yield running


def prose(number: int, characters: int) -> str:
    """Return a text of its own that cannot be compressed by half, so it is sent as it is."""
    return base64.b64encode(random.Random(number).randbytes(characters * 3 // 4)).decode()


@asynccontextmanager
async def agent_through(
    address: str, server: Server, app: FakeTaskApp
) -> AsyncIterator[asyncio.Task[None]]:
    made = await server.create_task("demo", standalone=True)
    agent = asyncio.create_task(Agent(Options(address, made.agent_token, app.url), FAST).run())
    try:
        yield agent
    finally:
        agent.cancel()
        await asyncio.wait({agent})


async def contents(server: Server, source: LogSource | None = LogSource.SNAPSHOT) -> list[str]:
    async with TaskLogsClient(server.address, timeout=LONG) as client:
        log = await client.get("local/demo", source=source)
        return [entry.content async for entry in log.entries()]


async def until_stored(server: Server, app: FakeTaskApp, agent: asyncio.Task[None]) -> None:
    """Wait until the server has what the task app shows. Fails if the agent ends."""
    shown = [message.content for message in app.messages]

    async def is_stored() -> bool:
        assert not agent.done(), agent.exception()
        return await contents(server) == shown

    await until(is_stored)


async def test_a_conversation_larger_than_the_body_limit_is_stored(
    app: FakeTaskApp, server: Server, nginx: Nginx
) -> None:
    for number in range(102):
        app.say("user" if number % 2 else "agent", prose(number, 30_000))
    async with agent_through(nginx.address, server, app) as agent:
        await until_stored(server, app, agent)
    # An append of 2 MiB broke the first stream. Half of that may be too much for the second one.
    assert 1 <= nginx.error_log.count(TOO_LARGE) <= 2


async def test_small_changes_that_add_up_to_the_body_limit_break_two_streams_and_no_more(
    app: FakeTaskApp, server: Server, nginx: Nginx
) -> None:
    async with agent_through(nginx.address, server, app) as agent:
        await until_stored(server, app, agent)
        for number in range(60):
            app.say("user" if number % 2 else "agent", prose(number, 100_000))
            if number % 3 == 2:
                # A live read waits for the next stream, if one ends meanwhile.
                shown = [message.content for message in app.messages]
                assert await contents(server, LogSource.LIVE) == shown
        assert not agent.done()
    assert 1 <= nginx.error_log.count(TOO_LARGE) <= 2


@pytest.mark.parametrize("character", ["x", "ü"])
async def test_an_entry_as_large_as_the_body_limit_is_stored_in_parts(
    app: FakeTaskApp, server: Server, nginx: Nginx, character: str
) -> None:
    longest = character * ((1 << 20) // len(character.encode()))
    app.say("user", "print all")
    app.say("agent", longest)
    async with agent_through(nginx.address, server, app) as agent:
        await until_stored(server, app, agent)
        app.redraw("y" + longest[:-1])
        await until_stored(server, app, agent)
        app.say("user", "thanks")
        await until_stored(server, app, agent)


@pytest.mark.parametrize("status", STATUSES)
async def test_an_agent_outlives_what_a_proxy_answers(
    app: FakeTaskApp, server: Server, nginx: Nginx, status: int
) -> None:
    async with FaultyProxy(int(nginx.address.rpartition(":")[2])) as network:
        nginx.answer(status)
        async with agent_through(network.address, server, app) as agent:
            await until(lambda: nginx.answered(status) >= 3 or agent.done())
            nginx.answer(None)
            app.say("user", "it starts")
            await until_stored(server, app, agent)
            refused = nginx.answered(status)
            nginx.answer(status)
            network.cut()
            await until(lambda: nginx.answered(status) >= refused + 3 or agent.done())
            nginx.answer(None)
            app.say("agent", "and goes on")
            await until_stored(server, app, agent)


@pytest.mark.parametrize("status", STATUSES)
async def test_a_running_follow_outlives_what_a_proxy_answers(
    server: Server, nginx: Nginx, status: int
) -> None:
    await server.create_task("demo", standalone=True)
    heard: list[Reconnecting | Reconnected] = []
    async with (
        FaultyProxy(int(nginx.address.rpartition(":")[2])) as network,
        TaskLogsClient(network.address, reconnect_waits=SOON, token="good") as client,
        client.follow(
            "local/demo", source=LogSource.SNAPSHOT, progress=True, on_reconnect=heard.append
        ) as follow,
    ):
        await anext(follow)
        nginx.answer(status)
        network.cut()
        reading = asyncio.create_task(_until_reconnected(follow, heard))
        await until(lambda: nginx.answered(status) >= 3 or reading.done())
        nginx.answer(None)
        await reading


async def _until_reconnected(follow: Follow, heard: list[Reconnecting | Reconnected]) -> None:
    async for _ in follow:
        if any(isinstance(one, Reconnected) for one in heard):
            return


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "it wants credentials of its own"),
        (403, "it does not allow the call"),
        (404, "it does not forward the call"),
        (429, "it limits the rate of calls"),
        (502, "it cannot reach the server"),
    ],
)
async def test_a_first_call_names_the_proxy_that_answered(
    nginx: Nginx, status: int, said: str
) -> None:
    nginx.answer(status)
    finished = await run("task", "get", "local/demo", "--server", nginx.address)
    assert finished == Finished(
        1,
        "",
        f"tasklogs: no TaskLogs server answers at {nginx.address}:"
        f" a proxy answered with HTTP status {status} ({said})\n",
    )


async def test_progress_keeps_a_silent_follow_open(server: Server, tmp_path: Path) -> None:
    await server.create_task("demo", standalone=True)
    heard: list[Reconnecting | Reconnected] = []
    with Nginx(server.address, tmp_path, ["grpc_read_timeout 5s;"]) as nginx:
        async with (
            TaskLogsClient(nginx.address, reconnect_waits=SOON) as client,
            client.follow(
                "local/demo",
                source=LogSource.SNAPSHOT,
                progress=True,
                progress_interval=timedelta(seconds=1),
                on_reconnect=heard.append,
            ) as follow,
        ):
            count = 0
            async for event in follow:
                count += isinstance(event, Progress)
                if count == 8:
                    break
    assert not heard


@pytest.mark.parametrize("setting", ["grpc_read_timeout", "client_body_timeout"])
async def test_an_agent_whose_idle_stream_is_cut_loses_nothing(
    app: FakeTaskApp, server: Server, tmp_path: Path, setting: str
) -> None:
    with Nginx(server.address, tmp_path, [f"{setting} 1s;"]) as nginx:
        async with agent_through(nginx.address, server, app) as agent:
            await until_stored(server, app, agent)
            await until(lambda: nginx.answered(200) >= 3 or agent.done())
            app.say("user", "still there?")
            await until_stored(server, app, agent)


async def test_the_settings_of_the_docs_carry_everything_on_one_stream(
    app: FakeTaskApp, server: Server, tmp_path: Path
) -> None:
    documented = OPERATIONS.read_text().partition("```nginx")[2].partition("```")[0]
    names = ("client_", "grpc_read_", "large_client_", "http2_")
    settings = [line for line in documented.splitlines() if line.strip().startswith(names)]
    assert len(settings) == 5
    made = await server.create_task("demo", standalone=True)
    for number in range(102):
        app.say("user" if number % 2 else "agent", prose(number, 30_000))
    with Nginx(server.address, tmp_path, settings) as nginx:
        agent = asyncio.create_task(
            Agent(Options(nginx.address, made.agent_token, app.url), FAST).run()
        )
        try:
            await until_stored(server, app, agent)
        finally:
            agent.cancel()
            await asyncio.wait({agent})
        assert nginx.answered(200) + nginx.answered(499) <= 1
        assert TOO_LARGE not in nginx.error_log
        # A token of 9,000 bytes passes. This server does not look at it.
        async with TaskLogsClient(nginx.address, token="t" * 9000) as client:
            assert (await client.get_task("local/demo")).name == "demo"
