"""The client with the real server, an agent's stream, and a network that breaks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import pytest

from tasklogs import (
    AgentLifecycle,
    AppHealth,
    BuildTransition,
    CaughtUp,
    EntriesChanged,
    EntryChange,
    EntryWithdrawn,
    EpochStarted,
    Follow,
    FollowEvent,
    JobStatus,
    LogSource,
    Reconnected,
    Reconnecting,
    ReconnectWaits,
    StatusChanged,
    TaskLogsClient,
    TaskStatus,
    errors,
)
from tasklogs_server import app
from tasklogs_server.settings import ServerSettings
from tests.support.fakes.faulty_proxy import FaultyProxy
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry, tail_delta, tail_pieces
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.content_deltas import cut, result_of
from tests.support.fixtures.server import Server

TASK = "local/demo"
SOON = ReconnectWaits(first=timedelta(milliseconds=5), cap=timedelta(milliseconds=50))
START, STOP = BuildTransition.START, BuildTransition.STOP


@pytest.fixture
async def client(server: Server) -> AsyncIterator[TaskLogsClient]:
    async with TaskLogsClient(server.address, reconnect_waits=SOON) as client:
        yield client


async def make_active(client: TaskLogsClient, build_number: int = 1) -> None:
    await client.report_build(TASK, build_number, START, JobStatus.SUCCEEDED)
    await client.report_agent(
        TASK, build_number, lifecycle=AgentLifecycle.READY, app_health=AppHealth.HEALTHY
    )


async def until(follow: Follow, kind: type[FollowEvent]) -> list[FollowEvent]:
    """Read up to the next event of `kind`."""
    seen: list[FollowEvent] = []
    async with asyncio.timeout(DEADLINE_SECONDS):
        async for event in follow:
            seen.append(event)
            if isinstance(event, kind):
                break
    return seen


async def next_status(follow: Follow) -> TaskStatus:
    """Return the next status; statuses with other facts may come before it."""
    event = (await until(follow, StatusChanged))[-1]
    assert isinstance(event, StatusChanged)
    return event.status


async def status_becomes(follow: Follow, status: TaskStatus) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while await next_status(follow) is not status:
            pass


async def next_change(follow: Follow) -> EntryChange:
    event = (await until(follow, EntriesChanged))[-1]
    assert isinstance(event, EntriesChanged)
    return event.changes[-1]


async def test_one_follow_sees_a_task_from_before_its_first_build_through_a_pause(
    server: Server, client: TaskLogsClient
) -> None:
    created = await client.create_task("demo")
    follow = client.follow(TASK)

    assert await next_status(follow) is TaskStatus.PENDING
    await until(follow, CaughtUp)
    await client.report_build(TASK, 1, START, JobStatus.RUNNING)
    await status_becomes(follow, TaskStatus.INITIALIZING)
    await make_active(client)
    await status_becomes(follow, TaskStatus.ACTIVE)
    async with ScriptedAgent.connect(server, created.agent_token) as agent:
        await agent.append([log_entry(0, "6 x 7?"), log_entry(1, "It")], open_epoch=True)
        change = await next_change(follow)
        while change.entry.id == 0:
            change = await next_change(follow)
        assert (change.entry.content, change.appended) == ("It", "It")
        await agent.append(tail=tail_delta(1, 2, " is 42."))
        change = await next_change(follow)
        assert (change.entry.content, change.appended) == ("It is 42.", " is 42.")
        await client.report_build(TASK, 2, STOP, JobStatus.SUCCEEDED)
        await status_becomes(follow, TaskStatus.PAUSED)
    await make_active(client, 3)
    await status_becomes(follow, TaskStatus.ACTIVE)
    async with ScriptedAgent.connect(server, created.agent_token) as agent:
        await agent.append([log_entry(2, "And 7 x 8?")])
        assert (await next_change(follow)).entry.content == "And 7 x 8?"
        await agent.append(withdraw_tail=True)
        assert isinstance((await until(follow, EntryWithdrawn))[-1], EntryWithdrawn)
        await agent.append([log_entry(0, "hello")], open_epoch=True)
        started = (await until(follow, EpochStarted))[-1]
        assert isinstance(started, EpochStarted)
        assert started.epoch == 2
        assert (await next_change(follow)).entry.content == "hello"
    await client.delete_task(TASK)
    with pytest.raises(errors.TaskNotFound, match=TASK):  # by the name that was asked for
        await until(follow, CaughtUp)


async def test_a_read_gives_the_cursor_to_follow_from(
    server: Server, client: TaskLogsClient
) -> None:
    created = await client.create_task("demo")
    async with ScriptedAgent.connect(server, created.agent_token) as agent:
        await agent.append([log_entry(0, "a"), log_entry(1, "b")], open_epoch=True)
        await agent.acked()
        log = await client.get(TASK, source=LogSource.SNAPSHOT)
        assert [entry.content async for entry in log.entries()] == ["a", "b"]
        follow = client.follow(TASK, cursor=log.cursor)
        before = await until(follow, CaughtUp)
        await agent.append(tail=tail_delta(1, 1, "c"))

        change = await next_change(follow)

    assert not any(isinstance(event, EntriesChanged) for event in before)
    assert change.entry.content == "bc"


async def test_a_cursor_of_another_task_is_refused(client: TaskLogsClient) -> None:
    await client.create_task("demo")
    await client.create_task("other")
    cursor = (await client.get("local/other")).cursor

    with pytest.raises(errors.InvalidArgument):
        await anext(client.follow(TASK, cursor=cursor))
    with pytest.raises(errors.TaskNotFound):
        await anext(client.follow("local/nobody"))


async def test_a_follow_survives_a_server_restart_also_while_the_task_is_in_error(
    database: str,
) -> None:
    told: list[Reconnecting | Reconnected] = []
    async with serving("127.0.0.1:0", database) as server:
        address = server.address
        client = await TaskLogsClient(address, reconnect_waits=SOON).__aenter__()
        created = await client.create_task("demo")
        await make_active(client)
        follow = client.follow(TASK, on_reconnect=told.append)
        async with ScriptedAgent.connect(server, created.agent_token) as agent:
            agent.answer_syncs()
            await agent.append([log_entry(0, "a")], open_epoch=True)
            await until(follow, CaughtUp)
        await client.report_agent(TASK, 1, app_health=AppHealth.UNHEALTHY)
        await status_becomes(follow, TaskStatus.ERROR)
        reading = asyncio.create_task(next_change(follow))
    async with (
        client,
        serving(address, database) as server,
        ScriptedAgent.connect(server, created.agent_token) as agent,
    ):
        await agent.append([log_entry(1, "b")])

        assert (await reading).entry.content == "b"

    assert isinstance(told[0], Reconnecting)
    assert isinstance(told[-1], Reconnected)


@asynccontextmanager
async def serving(address: str, dsn: str) -> AsyncIterator[Server]:
    settings: dict[str, Any] = {"listen": address}
    async with (
        app.run(ServerSettings(**settings), dsn) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        yield Server(running.address, dsn, channel)


@pytest.mark.parametrize("seed", range(20))
async def test_a_network_that_breaks_at_random_moments_loses_and_repeats_nothing(
    server: Server, seed: int
) -> None:
    dice = random.Random(seed)
    deltas = seed % 4 != 0
    said: dict[int, str] = {}
    view: dict[int, str] = {}
    revisions: list[int] = []
    async with (
        asyncio.timeout(DEADLINE_SECONDS),
        TaskLogsClient(server.address) as operator,
        FaultyProxy(int(server.address.rpartition(":")[2])) as network,
        TaskLogsClient(network.address, reconnect_waits=SOON) as client,
    ):
        created = await operator.create_task("demo")
        async with ScriptedAgent.connect(server, created.agent_token) as agent:
            await agent.append([log_entry(0, "begin")], open_epoch=True)
            said[0] = "begin"
            talking = asyncio.create_task(talk(agent, dice, said))
            network.cut_after(dice.randrange(1, 2_000))
            async for event in client.follow(TASK, deltas=deltas):
                if not isinstance(event, EntriesChanged):
                    continue
                for change in event.changes:
                    before = view.get(change.entry.id, "")
                    assert (change.replaces is None) == (change.entry.id not in view)
                    if change.appended is not None:
                        assert change.entry.content == before + change.appended
                    view[change.entry.id] = change.entry.content
                    revisions.append(change.entry.revision)
                if view.get(max(view)) == "the end":
                    break
                if network.cuts < 20 and dice.random() < 0.5:
                    network.cut_after(dice.randrange(1, 2_000))
            await talking

    assert view == said
    assert revisions == sorted(set(revisions))
    assert network.cuts > 0


async def talk(agent: ScriptedAgent, dice: random.Random, said: dict[int, str]) -> None:
    """Append 200 changes: entries that grow and are redrawn."""
    last = 0
    for _ in range(200):
        kind = dice.choice(("grow", "grow", "redraw", "rearrange", "next"))
        if kind == "next":
            last += dice.randrange(1, 3)
            said[last] = f"entry {last} é "
            await agent.append([log_entry(last, said[last])])
        elif kind == "rearrange":
            before = said[last].encode()
            places = [(dice.randrange(99), dice.randrange(99), dice.choice("a漢")) for _ in "123"]
            pieces = cut(before, places)
            said[last] = result_of(before, pieces).decode()
            await agent.append(tail=tail_pieces(last, pieces))
        else:
            keep = len(said[last]) if kind == "grow" else dice.randrange(len(said[last]))
            text = dice.choice(("ab", "漢字", "\n")) * dice.randrange(1, 20)
            said[last] = said[last][:keep] + text
            await agent.append(tail=tail_delta(last, len(said[last][:keep].encode()), text))
        if dice.random() < 0.5:
            await agent.acked()
    said[last + 1] = "the end"
    await agent.append([log_entry(last + 1, "the end")])
    await agent.acked()
