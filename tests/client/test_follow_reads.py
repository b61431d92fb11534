"""Reads of a follow that are cancelled, timed out, dropped or closed."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc.aio
import pytest

from tasklogs import (
    CaughtUp,
    ClientClosed,
    EntriesChanged,
    Follow,
    FollowEvent,
    StatusChanged,
    TaskLogsClient,
    TaskLogType,
)
from tests.client.test_follow import contents, take
from tests.support.fakes.log_server import (
    ACTIVE,
    HOLD,
    LogServer,
    caught_up,
    entries,
    entry,
    log_server,
    status,
)
from tests.support.fixtures.conditions import until

TASK = "local/demo"
SOON = 0.005
"""Shorter than a round trip, and long enough to reach the server within a few."""


@pytest.fixture
async def server() -> AsyncIterator[LogServer]:
    async with log_server() as server:
        yield server


@pytest.fixture
async def client(server: LogServer) -> AsyncIterator[TaskLogsClient]:
    async with TaskLogsClient(server.address) as client:
        yield client


async def impatient(follow: Follow, times: int) -> None:
    """Read so many times, and give up each time before anything comes."""
    for _ in range(times):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SOON):
                await anext(follow)


async def test_reads_that_time_out_before_the_first_message_open_one_stream(
    server: LogServer, client: TaskLogsClient
) -> None:
    answer = asyncio.Event()
    server.streams = [[answer, status("c0", ACTIVE), HOLD]]
    follow = client.follow(TASK)

    await impatient(follow, 20)
    await until(lambda: bool(server.follows))
    await impatient(follow, 20)
    answer.set()

    assert [type(one) for one in await take(follow, 1)] == [StatusChanged]
    assert len(server.follows) == 1


async def test_reads_that_time_out_lose_and_repeat_nothing(
    server: LogServer, client: TaskLogsClient
) -> None:
    more = asyncio.Event()
    logs = [entries(f"c{n}", entry(n, "a", n)) for n in range(1, 20)]
    server.streams = [[status("c0", ACTIVE), more, *logs, HOLD]]
    follow = client.follow(TASK)
    await take(follow, 1)

    await impatient(follow, 10)
    assert follow.cursor == "c0"
    more.set()
    await server.held.wait()
    assert follow.cursor == "c0"  # one event may have been read; none was yielded

    events = await take(follow, 19)
    assert [one.cursor for one in events] == [f"c{n}" for n in range(1, 20)]
    assert follow.cursor == "c19"
    assert len(server.follows) == 1


async def test_a_token_that_comes_late_is_waited_for_once(server: LogServer) -> None:
    asked, answer = 0, asyncio.Event()

    async def token() -> str:
        nonlocal asked
        asked += 1
        await answer.wait()
        return "secret"

    server.streams = [[status("c0", ACTIVE), HOLD]]
    async with TaskLogsClient(server.address, token=token) as client:
        follow = client.follow(TASK)
        await impatient(follow, 5)
        answer.set()
        await take(follow, 1)

    assert asked == 1
    assert server.tokens == ["Bearer secret"]


@pytest.mark.parametrize("by", ["follow", "client"])
async def test_a_follow_that_is_closed_while_it_awaits_its_token_opens_no_stream(
    server: LogServer, by: str
) -> None:
    waiting, answer = asyncio.Event(), asyncio.Event()

    async def token() -> str:
        waiting.set()
        await answer.wait()
        return "secret"

    async with TaskLogsClient(server.address, token=token) as client:
        follow = client.follow(TASK)
        reading = asyncio.create_task(_rest(follow))
        await waiting.wait()

        await (follow.aclose() if by == "follow" else client.close())
        answer.set()

        async with asyncio.timeout(5):
            assert await reading == []
    assert server.follows == []


async def test_a_token_that_does_not_let_itself_be_cancelled_opens_no_stream_either(
    server: LogServer,
) -> None:
    waiting = asyncio.Event()

    async def token() -> str:
        waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "secret"
        raise AssertionError

    async with TaskLogsClient(server.address, token=token) as client:
        follow = client.follow(TASK)
        reading = asyncio.create_task(_rest(follow))
        await waiting.wait()
        await follow.aclose()
        async with asyncio.timeout(5):
            assert await reading == []
    assert server.follows == []


async def test_a_follow_that_is_closed_while_it_asks_for_features_opens_no_stream(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.answers = [HOLD]
    follow = client.follow(TASK, types=[TaskLogType.INPUT])
    reading = asyncio.create_task(_rest(follow))
    await server.called.wait()

    await follow.aclose()

    async with asyncio.timeout(5):
        assert await reading == []
    assert server.follows == []


async def test_a_follow_may_be_closed_by_its_own_token(server: LogServer) -> None:
    follows: list[Follow] = []

    async def token() -> str:
        await follows[0].aclose()
        return "secret"

    async with TaskLogsClient(server.address, token=token) as client:
        follows.append(client.follow(TASK))
        async with asyncio.timeout(5):
            assert await _rest(follows[0]) == []
    assert server.follows == []


async def test_the_readers_own_cancellation_stays_one_when_the_follow_is_closed_meanwhile(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.streams = [[status("c0", ACTIVE), HOLD]]
    follow = client.follow(TASK)
    await take(follow, 1)
    reading = asyncio.create_task(_rest(follow))
    await server.held.wait()

    reading.cancel()
    await follow.aclose()

    await asyncio.wait({reading})
    assert reading.cancelled()


@pytest.mark.parametrize("moment", ["while it reads", "with an event", "with an error"])
async def test_a_follow_that_is_dropped_leaves_no_task_and_no_word(
    server: LogServer, client: TaskLogsClient, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    before = asyncio.all_tasks()
    more = asyncio.Event()
    server.streams = [[status("c0", ACTIVE), more, caught_up("c1"), HOLD]]

    def callback(_: object) -> None:
        raise LookupError

    follow = client.follow(TASK, on_reconnect=callback)
    await take(follow, 1)
    await impatient(follow, 2)
    if moment == "with an event":
        more.set()
        await server.held.wait()
    elif moment == "with an error":
        server.streams = []
        assert follow._streams._stream is not None
        follow._streams._stream.cancel()
        read = follow._pending
        assert read is not None
        await until(read.done)
        del read
    del follow
    gc.collect()

    await server.left.wait()
    await until(lambda: not _own(asyncio.all_tasks() - before))
    gc.collect()
    assert said == []
    assert [one for one in caplog.messages if "destroyed" in one or "retrieved" in one] == []


async def test_closing_the_client_leaves_no_task_of_a_follow_that_was_just_dropped(
    server: LogServer,
) -> None:
    before = asyncio.all_tasks()
    async with TaskLogsClient(server.address) as client:
        follow = client.follow(TASK)
        await impatient(follow, 1)
        del follow
    assert _own(asyncio.all_tasks() - before) == set()


async def test_two_readers_of_a_follow_share_its_events(
    server: LogServer, client: TaskLogsClient
) -> None:
    more = asyncio.Event()
    logs = [entries(f"c{n}", entry(n, "a", n)) for n in range(1, 11)]
    server.streams = [[status("c0", ACTIVE), more, *logs, HOLD]]
    follow = client.follow(TASK)
    await take(follow, 1)
    readers = [asyncio.create_task(take(follow, 5)) for _ in range(2)]
    more.set()

    seen = [event for reader in readers for event in await reader]

    assert sorted(contents(seen)) == [(n, "a") for n in range(1, 11)]


async def test_a_follow_on_a_channel_that_its_owner_closed_says_so(server: LogServer) -> None:
    server.streams = [[status("c0", ACTIVE), HOLD]]
    channel = grpc.aio.insecure_channel(server.address)
    async with TaskLogsClient(channel=channel) as client:
        follow = client.follow(TASK)
        await take(follow, 1)
        reading = asyncio.create_task(anext(follow))
        await server.held.wait()

        await channel.close()

        with pytest.raises(ClientClosed):
            await reading
        with pytest.raises(ClientClosed):
            await anext(client.follow(TASK))


async def test_a_follow_reads_at_most_one_event_ahead(
    server: LogServer, client: TaskLogsClient
) -> None:
    logs = [entries(f"c{n}", entry(n, "a", n)) for n in range(1, 50)]
    server.streams = [[status("c0", ACTIVE), *logs, HOLD]]
    follow = client.follow(TASK)
    await take(follow, 1)
    await server.held.wait()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await anext(follow)
    await until(lambda: follow._pending is None or follow._pending.done())

    assert follow._streams.messages == 2
    assert isinstance((await take(follow, 1))[0], EntriesChanged)


async def test_a_time_limit_of_the_callers_own_program_can_be_any(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.streams = [[status("c0", ACTIVE), caught_up("c0"), HOLD]]
    follow = client.follow(TASK, connect_timeout=timedelta(seconds=20))
    kinds = [type(await asyncio.wait_for(anext(follow), 20)) for _ in range(2)]
    assert kinds == [StatusChanged, CaughtUp]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(follow), SOON)


def _own(tasks: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Without those of the fake server, which lives in the same loop."""
    return {task for task in tasks if "tasklogs/client" in str(task.get_coro())}


async def _rest(follow: Follow) -> list[FollowEvent]:
    return [event async for event in follow]
