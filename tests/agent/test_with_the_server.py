"""The agent with the real server and a real Postgres, and a fake task app."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from tasklogs.agent.run import Agent, Options
from tasklogs.agent.settings import Settings
from tasklogs.publish.reconnect import Fatal
from tasklogs.v1 import task_agents_pb2, task_logs_pb2, tasks_pb2, types_pb2
from tests.agent.conftest import FAST, until
from tests.support.fakes.faulty_proxy import FaultyProxy
from tests.support.fakes.task_app import FakeTaskApp, fails
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.server import MakeServer, Server

SNAPSHOT = task_logs_pb2.LOG_SOURCE_SNAPSHOT


@asynccontextmanager
async def agent_of(
    made: tasks_pb2.CreateTaskResponse,
    address: str,
    app: FakeTaskApp,
    settings: Settings = FAST,
) -> AsyncIterator[tuple[Agent, asyncio.Task[None]]]:
    agent = Agent(Options(address, made.agent_token, app.url), settings)
    async with running(agent) as task:
        yield agent, task


@asynccontextmanager
async def running(agent: Agent) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(agent.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def create(server: Server) -> tasks_pb2.CreateTaskResponse:
    return await server.create_task("demo", standalone=True)


async def read(server: Server, **fields: object) -> task_logs_pb2.GetTaskLogsResponse:
    request = task_logs_pb2.GetTaskLogsRequest(task="local/demo", **fields)  # type: ignore[arg-type]
    return await server.logs.GetTaskLogs(request, timeout=DEADLINE_SECONDS)


async def read_all(server: Server) -> list[types_pb2.TaskLogEntry]:
    page = await read(server)
    entries = list(page.logs)
    while page.next_page_token:
        page = await read(server, page_token=page.next_page_token)
        entries += page.logs
    return entries


async def until_status(server: Server, status: types_pb2.TaskStatus.ValueType) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (await read(server, source=SNAPSHOT)).status != status:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def contents(log: task_logs_pb2.GetTaskLogsResponse) -> list[str]:
    return [entry.content for entry in log.logs]


async def test_a_live_read_has_all_that_was_shown_before_it(
    app: FakeTaskApp, make_server: MakeServer
) -> None:
    app.become_ready()
    async with make_server() as server, agent_of(await create(server), server.address, app):
        await until_status(server, types_pb2.TASK_STATUS_ACTIVE)
        for number in range(20):
            app.say("user" if number % 2 else "agent", f"message {number}")
            log = await read(server)
            assert not log.snapshot
            assert contents(log) == [message.content for message in app.messages]
            app.grow("!")
            assert contents(await read(server))[-1] == f"message {number}!"


async def test_a_long_conversation_and_a_long_message_are_read_as_they_were_shown(
    app: FakeTaskApp, make_server: MakeServer
) -> None:
    app.become_ready()
    for number in range(2000):
        app.say("user" if number % 2 else "agent", f"{number} ü\x00 " + "x" * 500)
    app.say("agent", "y" * 1_000_000)
    # A busy machine needs its time to carry two million bytes through all of this.
    patient = replace(
        FAST, fetch_fallback_seconds=DEADLINE_SECONDS, sync_timeout_seconds=DEADLINE_SECONDS
    )
    async with (
        make_server(sync_timeout=timedelta(seconds=DEADLINE_SECONDS)) as server,
        agent_of(await create(server), server.address, app, patient),
    ):
        await until_status(server, types_pb2.TASK_STATUS_ACTIVE)
        entries = await read_all(server)
    assert [entry.content for entry in entries] == [one.content for one in app.messages]
    assert [entry.id for entry in entries] == [one.id for one in app.messages]


async def test_a_restarted_server_loses_nothing_and_stores_nothing_twice(
    app: FakeTaskApp, make_server: MakeServer
) -> None:
    app.become_ready()
    app.say("user", "before")
    async with FaultyProxy(0) as network, AsyncExitStack() as agents:
        async with make_server() as first:
            network.target = int(first.address.rpartition(":")[2])
            agent = agent_of(await create(first), network.address, app)
            await agents.enter_async_context(agent)
            await until_status(first, types_pb2.TASK_STATUS_ACTIVE)
            assert contents(await read(first)) == ["", "before"]
        app.grow(", and while it was away")
        app.say("agent", "after")
        async with make_server() as second:
            network.target = int(second.address.rpartition(":")[2])
            await until_status(second, types_pb2.TASK_STATUS_ACTIVE)
            log = await read(second)
            assert contents(log) == ["", "before, and while it was away", "after"]
            assert log.epoch == 1


async def test_the_task_apps_messages_reach_the_reader(
    app: FakeTaskApp, make_server: MakeServer
) -> None:
    app.become_ready()
    async with make_server() as server, agent_of(await create(server), server.address, app):
        await until_status(server, types_pb2.TASK_STATUS_ACTIVE)
        await read(server)
        app.fail_next("/messages", fails, times=1000)
        with pytest.raises(grpc.aio.AioRpcError, match="HTTP 500") as caught:
            await read(server)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_goodbye_for_a_pause_pauses_a_standalone_task(
    app: FakeTaskApp, make_server: MakeServer
) -> None:
    app.become_ready()
    async with make_server() as server:
        async with agent_of(await create(server), server.address, app) as (agent, running):
            await until_status(server, types_pb2.TASK_STATUS_ACTIVE)
            app.say("agent", "last words")
            agent.departure.want(task_agents_pb2.Goodbye.REASON_PAUSING)
            async with asyncio.timeout(DEADLINE_SECONDS):
                await running
        log = await read(server)
        assert log.status == types_pb2.TASK_STATUS_PAUSED
        assert log.snapshot
        assert contents(log) == ["", "last words"]


async def test_a_redrawn_and_withdrawn_tail_is_stored_as_shown(
    make_server: MakeServer,
) -> None:
    async with (
        FakeTaskApp(interval_seconds=0.005, acp=True) as app,
        make_server() as server,
        agent_of(await create(server), server.address, app),
    ):
        app.become_ready()
        await until_status(server, types_pb2.TASK_STATUS_ACTIVE)
        app.say("user", "first")
        app.say("agent", "")
        assert contents(await read(server)) == ["first", ""]
        app.withdraw()
        assert contents(await read(server)) == ["first"]
        app.say("user", "second")
        app.say("agent", "draw")
        app.redraw("drawn anew")
        log = await read(server)
        assert contents(log) == ["first", "second", "drawn anew"]
        assert [entry.id for entry in log.logs] == [0, 2, 3]
        assert log.epoch == 1


async def test_a_rotated_token_is_read_from_the_same_file(
    app: FakeTaskApp, make_server: MakeServer, tmp_path: Path
) -> None:
    app.become_ready()
    token = tmp_path / "token"
    found: list[str | None] = []

    def lying_there() -> str | None:
        found.append(token.read_text() if token.exists() else None)
        return found[-1]

    async with make_server() as server:
        made = await create(server)
        token.write_text(made.agent_token)
        options = Options(server.address, made.agent_token, app.url, read_token=lying_there)
        async with running(Agent(options, FAST)):
            await until_status(server, types_pb2.TASK_STATUS_ACTIVE)
            rotated = await server.tasks.RotateAgentToken(
                tasks_pb2.RotateAgentTokenRequest(task="local/demo")
            )
            app.say("user", "while the old one lay there")
            await until(lambda: made.agent_token in found)
            token.unlink()  # as where it is replaced by other means than a rename
            await until(lambda: None in found)
            token.write_text(rotated.agent_token)
            await until_status(server, types_pb2.TASK_STATUS_ACTIVE)
            assert contents(await read(server)) == ["", "while the old one lay there"]


async def test_an_agent_whose_token_stays_refused_exits(
    app: FakeTaskApp, make_server: MakeServer
) -> None:
    impatient = replace(FAST, rotation_timeout_seconds=0.2)
    async with make_server() as server:
        made = await create(server)
        await server.tasks.RotateAgentToken(tasks_pb2.RotateAgentTokenRequest(task="local/demo"))
        options = Options(
            server.address, made.agent_token, app.url, read_token=lambda: made.agent_token
        )
        with pytest.raises(Fatal, match="rotated"):
            await asyncio.wait_for(Agent(options, impatient).run(), DEADLINE_SECONDS)
