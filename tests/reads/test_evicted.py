"""Reads and follows of a log whose oldest part was evicted: there is never a silent gap."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import grpc
import pytest

from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import tasks_pb2
from tasklogs_server.domain.errors import CursorExpired
from tasklogs_server.domain.names import TaskId
from tasklogs_server.reads.tokens import Cursor
from tasklogs_server.store.evictions import EvictionOutcome, LogLimits
from tests.reads.follow_view import View
from tests.reads.followed import World
from tests.reads.test_paging import agent_of, contents, entries_of, read
from tests.reads.written_log import WrittenLog, entry, many, stored
from tests.support.fixtures.agent_stream import log_entry
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.reports import TASK, make_active
from tests.support.fixtures.server import MakeServer, Server

OUT_OF_RANGE = grpc.StatusCode.OUT_OF_RANGE


async def evict(log: WrittenLog, rows: int) -> None:
    """Evict until the log has so many rows."""
    limits = LogLimits(rows, 1 << 30, timedelta(0))
    while True:
        holding = await log.store.evictions.evict(log.task_id, limits)
        if holding.outcome is not EvictionOutcome.EVICTED:
            return


async def held_from(world: World) -> int:
    return (await world.store.evictions.evicted(world.log.task_id)).revision


async def test_a_cursor_before_evicted_changes_expires_and_the_error_has_the_oldest_valid_one(
    world: World,
) -> None:
    await world.log.entries(*many(50), open_epoch=True)
    await evict(world.log, 16)
    oldest = await held_from(world)
    async with world.following(cursor=Cursor(world.log.task_id, oldest - 1)) as reader:
        error = await reader.end()
        assert isinstance(error, CursorExpired)
        assert error.oldest == Cursor(world.log.task_id, oldest).encode()
        assert reader.messages == []
    # From there a follow sends exactly the stored entries.
    async with world.following(cursor=error.oldest) as goes_on:
        await goes_on.heard("caught_up")
        held = await stored(world.store, world.log.task_id)
        assert goes_on.view.entries == held
        assert len(held) == 14


async def test_the_oldest_cursor_covers_the_stored_entries_of_all_epochs(world: World) -> None:
    await world.log.entries(*many(20), open_epoch=True)
    await world.log.entries(*many(20), open_epoch=True)
    await evict(world.log, 30)
    async with world.following(cursor=Cursor(world.log.task_id, await held_from(world))) as reader:
        await reader.heard("caught_up")
        held = await stored(world.store, world.log.task_id)
        assert reader.view.entries == held
        assert {epoch for epoch, _ in held} == {1, 2}
        assert reader.events == ["status", "entries", "epoch_started", "entries", "caught_up"]


@pytest.mark.parametrize("tail", [None, 0, 5, 100])
async def test_a_follow_without_a_cursor_begins_with_what_is_held(
    world: World, tail: int | None
) -> None:
    await world.log.entries(*many(50), open_epoch=True)
    await evict(world.log, 16)
    held = await stored(world.store, world.log.task_id)
    _, start = await world.store.changes.start(TaskId(world.log.task_id), tail)
    assert start >= await held_from(world)
    async with world.following(tail=tail) as reader:
        await reader.heard("caught_up")
        wanted = list(held)[-tail:] if tail else list(held)
        assert list(reader.view.entries) == ([] if tail == 0 else wanted)
        await world.log.entries(entry(50, "new"))
        await reader.reached(world.log.revision)


async def test_a_lagging_follower_ends_when_entries_it_was_not_sent_are_evicted(
    world: World,
) -> None:
    await world.log.entries(entry(0, "a"), open_epoch=True)
    async with world.following() as slow, world.following() as fast:
        await asyncio.gather(slow.heard("caught_up"), fast.heard("caught_up"))
        slow.reads_on.clear()
        for number in range(1, 40):
            await world.log.entries(entry(number, "b"))
            await fast.reached(world.log.revision)
        await evict(world.log, 8)
        slow.reads_on.set()
        error = await slow.end()
        assert isinstance(error, CursorExpired)
        assert error.oldest is not None
        assert slow.view.revision < Cursor.decode(error.oldest).revision
        # A follower that was sent everything continues.
        await world.log.entries(entry(40, "c"))
        await fast.reached(world.log.revision)
        assert not fast.ended


async def test_a_lagging_follower_continues_if_it_was_sent_all_evicted_entries(
    world: World,
) -> None:
    await world.log.entries(*many(40), open_epoch=True)
    async with world.following() as slow, world.following() as fast:
        await asyncio.gather(slow.heard("caught_up"), fast.heard("caught_up"))
        slow.reads_on.clear()
        for number in range(40, 45):
            await world.log.entries(entry(number, "b"))
            await fast.reached(world.log.revision)
        await evict(world.log, 16)  # all of it was sent to both
        slow.reads_on.set()
        await slow.reached(world.log.revision)
        assert slow.view.entries == fast.view.entries


async def test_a_feed_that_missed_an_eviction_takes_no_follower_over_the_gap(
    world: World,
) -> None:
    await world.log.entries(entry(0, "a"), open_epoch=True)
    async with world.following() as reader:
        await reader.heard("caught_up")
        world.changes.is_away = True
        for number in range(1, 40):
            await world.log.entries(entry(number, "b"))
        await evict(world.log, 8)
        world.changes.is_away = False
        error = await reader.end()
        assert isinstance(error, CursorExpired)
        assert len(reader.view.entries) == 1


async def test_a_follow_of_the_whole_log_begins_later_if_entries_are_evicted_meanwhile(
    world: World,
) -> None:
    await world.log.entries(*many(40), open_epoch=True)
    begin = world.changes.start

    async def evicted_after(*args: object) -> object:
        begun = await begin(*args)  # type: ignore[arg-type]
        await evict(world.log, 8)
        return begun

    world.changes.start = evicted_after  # type: ignore[assignment,method-assign]
    async with world.following() as reader:
        await reader.heard("caught_up")
        assert reader.view.entries == await stored(world.store, world.log.task_id)


async def test_changes_are_found_after_the_beginning_of_an_epoch_was_evicted(world: World) -> None:
    await world.log.entries(*many(3000), open_epoch=True)
    await evict(world.log, 1000)
    held = await stored(world.store, world.log.task_id)
    oldest = await held_from(world)
    for revision in range(oldest, world.log.revision, 97):
        read = await world.store.changes.since(world.log.task_id, revision, rows=5000)
        view = View()
        async with world.following(cursor=Cursor(world.log.task_id, revision), view=view) as reader:
            await reader.heard("caught_up")
        assert list(view.entries) == [key for key, one in held.items() if one.revision > revision]
        assert read.revision == world.log.revision


async def test_an_evicted_epoch_is_refused_and_an_empty_one_is_not(
    make_server: MakeServer,
) -> None:
    async with (
        make_server(log_entries=100, min_retention=timedelta(0)) as server,
        agent_of(server, *entries_of(40)) as agent,
    ):
        await agent.append(open_epoch=True)
        await agent.append(open_epoch=True, entries=entries_of(50))
        await agent.acked()
        assert contents(await read(server, epoch=1)) == [str(number) for number in range(40)]
        assert contents(await read(server, epoch=2)) == []
        await agent.append(entries=[log_entry(100 + number, "x") for number in range(30)])
        await agent.acked()

        partly = await read(server, epoch=1)
        assert partly.first_id > 0
        assert partly.logs[0].id == partly.first_id
        assert contents(await read(server, epoch=2)) == []

        await agent.append(entries=[log_entry(200 + number, "x") for number in range(30)])
        await agent.acked()
        for epoch in (1, 2):
            refusal = await refused(read(server, epoch=epoch))
            assert (refusal.code, refusal.reason) == (OUT_OF_RANGE, "CURSOR_EXPIRED")
        whole = await read(server)
        assert (whole.epoch, whole.first_id) == (3, whole.logs[0].id)
        oldest = refusal.metadata["oldest_cursor"]
        assert await followed_from(server, oldest) == contents(whole)
        task = await server.tasks.GetTask(tasks_pb2.GetTaskRequest(task=TASK))
        assert task.log.entries == len(whole.logs)
        assert task.log.bytes == sum(len(one.content) for one in whole.logs)


async def test_a_page_of_evicted_entries_is_refused_with_the_oldest_valid_cursor(
    make_server: MakeServer,
) -> None:
    async with (
        make_server(log_entries=100, min_retention=timedelta(0)) as server,
        agent_of(server, *entries_of(90)) as agent,
    ):
        token = (await read(server, page_size=2)).next_page_token
        later = (await read(server, page_size=60)).next_page_token
        await agent.append(entries=[log_entry(1000 + number, "x") for number in range(30)])
        await agent.acked()
        refusal = await refused(read(server, page_size=2, page_token=token))
        assert (refusal.code, refusal.reason) == (OUT_OF_RANGE, "CURSOR_EXPIRED")
        oldest = refusal.metadata["oldest_cursor"]
        assert await followed_from(server, oldest) == contents(await read(server))
        # The entries after it are stored, so the page token is valid.
        answer = await read(server, page_size=60, page_token=later)
        assert contents(answer) == [str(number) for number in range(60, 90)]

        of_epoch_1 = (await read(server, page_size=60)).next_page_token
        await agent.append(open_epoch=True, entries=entries_of(90))
        await agent.append(entries=[log_entry(1000 + number, "x") for number in range(30)])
        await agent.acked()
        refusal = await refused(read(server, page_size=60, page_token=of_epoch_1))
        assert (refusal.code, refusal.reason) == (OUT_OF_RANGE, "CURSOR_EXPIRED")


async def test_a_tail_longer_than_the_stored_log_returns_all_stored_entries(
    make_server: MakeServer,
) -> None:
    async with (
        make_server(log_entries=100, min_retention=timedelta(0)) as server,
        agent_of(server, *entries_of(90)) as agent,
    ):
        await agent.append(entries=[log_entry(1000 + number, "x") for number in range(30)])
        await agent.acked()
        whole = await read(server)
        assert await read(server, tail=110) == whole
        assert contents(await read(server, tail=40)) == contents(whole)[-40:]


async def test_a_full_log_refuses_its_agent_and_stays_readable(
    make_server: MakeServer,
) -> None:
    async with make_server(log_entries=100) as server, agent_of(server, *entries_of(99)) as agent:
        await agent.append(entries=[log_entry(1000, "one too many")])
        ended = await agent.ended()
        assert ended.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert ended.reason == "LOG_FULL"
        assert contents(await read(server)) == [str(number) for number in range(99)]
        await make_active(server)
        snapshot = await read(server, source=pb.LOG_SOURCE_SNAPSHOT)
        assert len(snapshot.logs) == 99


async def followed_from(server: Server, cursor: str) -> list[str]:
    """Follow from a cursor until everything was sent. Return the contents."""
    request = pb.FollowTaskLogsRequest(task=TASK, cursor=cursor)
    held: list[str] = []
    async for message in server.logs.FollowTaskLogs(request):
        held += [one.content for one in message.entries.logs]
        if message.WhichOneof("event") == "caught_up":
            break
    return held
