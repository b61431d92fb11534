"""What an agent does when the server refuses its task's appends: it waits, and does not spin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import asyncpg
from structlog.testing import capture_logs

from tasklogs.v1 import types_pb2
from tests.agent.conftest import until
from tests.agent.test_with_the_server import SNAPSHOT, agent_of, contents, create, read
from tests.agent.test_with_the_server import until_status as until_read_status
from tests.support.fakes.faulty_proxy import FaultyProxy
from tests.support.fakes.task_app import FakeTaskApp
from tests.support.fixtures.agent_stream import ScriptedAgent
from tests.support.fixtures.conditions import until as until_holds
from tests.support.fixtures.server import MakeServer, Server


async def streams(server: Server) -> int:
    """How many streams the task has had."""
    connection = await asyncpg.connect(server.dsn)
    try:
        return int(await connection.fetchval("SELECT fence FROM log_heads"))
    finally:
        await connection.close()


async def until_shown(server: Server, wanted: list[str]) -> None:
    """Wait until the stored log has exactly these entries."""

    async def is_shown() -> bool:
        return contents(await read(server, source=SNAPSHOT)) == wanted

    await until_holds(is_shown)


def refusals(logged: list[Any]) -> Callable[[], list[Any]]:
    return lambda: [one for one in logged if one["event"] == "stream.ended"]


async def test_an_agent_whose_task_app_starts_over_and_over_waits_minutes(
    app: FakeTaskApp, make_server: MakeServer
) -> None:
    app.become_ready()
    app.say("user", "1")
    with capture_logs() as logged:
        async with (
            make_server(epochs_per_hour=2) as server,
            agent_of(await create(server), server.address, app),
        ):
            await until_read_status(server, types_pb2.TASK_STATUS_ACTIVE)
            for number in (2, 3):
                await app.restart(with_state=False)
                app.become_ready()
                app.say("user", str(number))
                if number == 2:
                    await until_shown(server, ["", "2"])
            await until(refusals(logged))
            [refusal] = refusals(logged)()
            assert refusal["code"] == "RESOURCE_EXHAUSTED"
            assert refusal["again_in_seconds"] >= 300
            assert await streams(server) == 1
            stored = await read(server, source=SNAPSHOT)
            assert (stored.epoch, contents(stored)) == (2, ["", "2"])
            assert contents(await read(server, source=SNAPSHOT, epoch=1)) == ["", "1"]


async def test_an_agent_whose_log_is_full_waits_and_the_log_stays_readable(
    app: FakeTaskApp, make_server: MakeServer
) -> None:
    app.become_ready()
    with capture_logs() as logged:
        async with (
            make_server(log_entries=100) as server,
            agent_of(await create(server), server.address, app),
        ):
            await until_read_status(server, types_pb2.TASK_STATUS_ACTIVE)
            for number in range(95):
                app.say("user", str(number))
            assert contents(await read(server))[-1] == "94"
            for number in range(95, 120):
                app.say("user", str(number))
            await until(refusals(logged))
            [refusal] = refusals(logged)()
            assert (refusal["code"], refusal["info"]) == ("RESOURCE_EXHAUSTED", "LOG_FULL")
            assert refusal["again_in_seconds"] >= 60
            assert await streams(server) == 1
            stored = await read(server, source=SNAPSHOT)
            assert contents(stored)[:96] == ["", *(str(number) for number in range(95))]
            assert len(stored.logs) <= 100


async def test_an_agent_that_connected_too_often_waits_as_long_as_it_is_told(
    app: FakeTaskApp, make_server: MakeServer
) -> None:
    app.become_ready()
    app.say("user", "before")
    with capture_logs() as logged:
        async with make_server(agent_connects_per_second=0.5, agent_connects_at_once=1) as server:
            made = await create(server)
            async with (
                ScriptedAgent.connect(server, made.agent_token),  # the one that it may at once
                FaultyProxy(int(server.address.rpartition(":")[2])) as network,
                agent_of(made, network.address, app),
            ):
                await until_shown(server, ["", "before"])
                network.cut()
                app.say("agent", "after")
                await until_shown(server, ["", "before", "after"])
            assert await streams(server) == 3
    told = [one for one in refusals(logged)() if one["code"] == "RESOURCE_EXHAUSTED"]
    # Without a requested wait it dials again within 50 ms: that would be dozens of times.
    assert 1 <= len(told) <= 2
