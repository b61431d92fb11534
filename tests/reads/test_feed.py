"""Many followers of one task: slow ones, lagging ones, and ones that disconnect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing

import pytest

from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import types_pb2 as types
from tasklogs_server.domain.read_plan import Source
from tests.reads.follow_reader import Reader
from tests.reads.follow_view import View, events
from tests.reads.followed import ACTIVE, FAILED, PAUSED, World
from tests.reads.written_log import WrittenLog, entry, many, stored


async def _caught_up(readers: list[Reader]) -> None:
    await asyncio.gather(*(one.heard("caught_up") for one in readers))


async def _reached(readers: list[Reader], revision: int) -> None:
    await asyncio.gather(*(one.reached(revision) for one in readers))


async def test_300_followers_cost_one_read_and_one_encoding_a_change(world: World) -> None:
    await world.log.entries(entry(0, ""), open_epoch=True)
    async with AsyncExitStack() as stack:
        readers = [
            await stack.enter_async_context(world.following(deltas=index % 2 == 0))
            for index in range(300)
        ]
        await _caught_up(readers)
        await world.log.grow(0, "x", keep_bytes=0)  # from here on the feed holds the tail
        await _reached(readers, world.log.revision)
        world.encoded.clear()
        reads = world.changes.of_feeds, world.changes.of_followers
        for index in range(1, 11):
            await world.log.grow(0, "x", keep_bytes=index)
            await _reached(readers, world.log.revision)
        assert world.changes.of_feeds - reads[0] == 10
        assert world.changes.of_followers == reads[1]
        assert len(world.encoded) == 20  # each change whole, and as a delta
        assert all(one.view.contents() == {(1, 0): "x" * 11} for one in readers)


async def test_followers_that_begin_together_share_the_reads_of_the_stored_log(
    world: World,
) -> None:
    await world.log.entries(*many(100, size_bytes=30_000), open_epoch=True)
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(world.following()) for _ in range(50)]
        await _caught_up(readers)
        assert world.changes.of_followers <= 50  # 4 pages each, alone
        assert all(len(one.view.entries) == 100 for one in readers)


async def test_a_follower_that_stops_reading_later_gets_the_latest_state_once(
    world: World,
) -> None:
    await world.log.entries(entry(0, ""), open_epoch=True)
    async with world.following(deltas=True) as slow, world.following(deltas=True) as other:
        await _caught_up([slow, other])
        slow.reads_on.clear()
        for index in range(200):
            await world.log.grow(0, "x", keep_bytes=index)
            await other.reached(world.log.revision)
        for index in range(1, 50):
            await world.log.entries(entry(index, "y"))
        await other.reached(world.log.revision)
        received = len(slow.messages)
        slow.reads_on.set()
        await slow.reached(world.log.revision)
        assert len(slow.messages) - received <= 4
        assert slow.view.entries == other.view.entries


async def test_a_follower_that_read_past_the_feed_returns_to_the_steps_of_the_feed(
    world: World,
) -> None:
    await world.log.entries(entry(0, "a"), open_epoch=True)
    async with world.following(deltas=True) as ahead, world.following() as other:
        await _caught_up([ahead, other])
        ahead.reads_on.clear()
        # It is behind by more than the growth of one tail, so it reads the store.
        await world.log.grow(0, "b", keep_bytes=1)
        await other.reached(world.log.revision)
        await world.log.entries(entry(1, "c"))
        await other.reached(world.log.revision)
        await world.log.grow(1, "d", keep_bytes=1)
        await other.reached(world.log.revision)
        world.changes.feeds_read.clear()
        await world.log.grow(1, "e", keep_bytes=1)
        ahead.reads_on.set()
        await ahead.reached(world.log.revision)  # past the feed
        reads = world.changes.of_followers
        await world.log.grow(1, "f", keep_bytes=1)
        world.changes.feeds_read.set()  # the next step begins before this follower's revision
        await _reached([ahead, other], world.log.revision)
        assert world.changes.of_followers <= reads + 1
        reads = world.changes.of_followers
        for text in "gh":
            await world.log.grow(1, text, keep_bytes=1)
            await _reached([ahead, other], world.log.revision)
        assert world.changes.of_followers == reads
        assert ahead.view.deltas >= 2
        assert ahead.view.entries == other.view.entries


async def test_a_follower_that_read_past_the_feed_gets_no_entry_twice(world: World) -> None:
    """The feed's step has changes that this follower has, and changes that it lacks."""
    await world.log.entries(entry(0, "a"), open_epoch=True)
    async with world.following() as ahead, world.following() as other:
        await _caught_up([ahead, other])
        ahead.reads_on.clear()
        for index in (1, 2, 3):
            await world.log.entries(entry(index, "x"))
            await other.reached(world.log.revision)
        world.changes.feeds_read.clear()
        await world.log.entries(entry(4, "x"))
        ahead.reads_on.set()
        await ahead.reached(world.log.revision)
        await world.log.entries(entry(5, "x"))
        world.changes.feeds_read.set()  # one step: entries 4 and 5
        await _reached([ahead, other], world.log.revision)
        assert ahead.view.entries == other.view.entries


async def test_a_follower_that_never_keeps_up_gets_status_and_caught_up(
    world: World,
) -> None:
    await world.log.entries(entry(0, ""), open_epoch=True)
    await world.log.report(ACTIVE)
    stream = world.stream(source=Source.DEFAULT)
    heard: list[pb.FollowTaskLogsResponse] = []
    async with world.following() as watcher, aclosing(stream):
        for index in range(20):
            heard.append(pb.FollowTaskLogsResponse.FromString(await anext(stream)))
            if index == 5:
                await world.log.report(FAILED)
            await world.log.grow(0, "x", keep_bytes=index)  # always one more before the next
            await watcher.reached(world.log.revision)
        assert "caught_up" in events(heard)
        assert [one.status.status for one in heard if one.HasField("status")] == [
            types.TASK_STATUS_ACTIVE,
            types.TASK_STATUS_ERROR,
        ]


async def test_the_last_follower_closes_the_feed_and_the_next_opens_another(
    world: World,
) -> None:
    await world.log.entries(entry(0, "a"), open_epoch=True)
    async with world.following() as one:
        async with world.following() as other:
            await _caught_up([one, other])
            assert world.open_feeds == 1
        await world.log.entries(entry(1, "b"))
        await one.reached(world.log.revision)
        assert world.open_feeds == 1
    assert world.open_feeds == 0
    async with world.following() as again:
        await again.heard("caught_up")
        assert world.open_feeds == 1


@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_a_follower_that_leaves_at_any_time_leaves_nothing_behind(
    world: World, turns: int
) -> None:
    """The fixture checks that no task and no feed is left."""
    await world.log.entries(*many(40, size_bytes=50_000), open_epoch=True)
    await world.log.report(ACTIVE)
    async with world.following() as stays:

        async def follow(stream: AsyncGenerator[bytes, None]) -> None:
            async with aclosing(stream):
                async for _ in stream:
                    pass

        leaving = [
            asyncio.create_task(follow(world.stream(source=Source.DEFAULT))) for _ in range(3)
        ]
        for _ in range(turns):
            await asyncio.sleep(0)
        if turns % 2:
            await stays.heard("entries")
        for one in leaving:
            one.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        assert all(one.cancelled() for one in leaving)
        await stays.heard("caught_up")
        assert len(stays.view.entries) == 40


async def test_a_shared_read_outlives_the_follower_that_began_it(world: World) -> None:
    await world.log.entries(entry(0, "a"), open_epoch=True)
    world.changes.followers_read.clear()
    async with world.following() as stays:
        async with world.following():
            await stays.heard("status")
            await world.changes.follower_asked.wait()
        world.changes.followers_read.set()
        await stays.heard("caught_up")
        assert stays.view.contents() == {(1, 0): "a"}


async def test_follows_of_different_tasks_do_not_mix(world: World) -> None:
    other = await WrittenLog.open(world.store, world.bus)
    await world.log.entries(entry(0, "mine"), open_epoch=True)
    await other.entries(entry(0, "other's"), open_epoch=True)
    async with world.following() as mine, world.following(log=other) as others:
        await _caught_up([mine, others])
        await other.entries(entry(1, "!"))
        await others.reached(other.revision)
        assert mine.view.contents() == {(1, 0): "mine"}
        assert others.view.contents() == {(1, 0): "other's", (1, 1): "!"}


async def test_a_commit_between_the_start_and_the_first_read_is_not_missed(
    world: World,
) -> None:
    """The note of the commit comes while there is no feed yet."""
    await world.log.entries(entry(0, "a"), open_epoch=True)
    begin = world.changes.start

    async def commits_after(*args: object) -> object:
        begun = await begin(*args)  # type: ignore[arg-type]
        await world.log.entries(entry(1, "b"))
        return begun

    world.changes.start = commits_after  # type: ignore[assignment,method-assign]
    async with world.following() as reader:
        await reader.until(lambda: (1, 1) in reader.view.entries)


async def test_random_commits_and_followers_end_in_one_view(world: World) -> None:
    """Writers and readers run in one event loop without sockets, which causes many small races."""
    writes = 400
    done = asyncio.Event()
    await world.log.entries(entry(0, ""), open_epoch=True)

    async def write() -> None:
        id_, length = 0, 0
        for index in range(writes):
            match index * 7919 % 11:
                case 0:
                    id_, length = id_ + 1, 0
                    await world.log.entries(entry(id_, ""))
                case 1:
                    await world.log.withdraw(entry(id_ + index % 2, "w"))
                    id_, length = id_ + index % 2, 1
                case 2 if index % 5 == 0:
                    id_, length = 0, 1
                    await world.log.entries(entry(0, "e"), open_epoch=True)
                case 3:
                    await world.log.report(PAUSED if index % 2 else ACTIVE)
                case _:
                    await world.log.grow(id_, "xy", keep_bytes=length)
                    length += 2
        done.set()

    async def follow(turns: int) -> View:
        view = View()
        while not done.is_set():
            resumed = view.cursor or None
            deltas = turns % 2 == 0
            async with world.following(view=view, deltas=deltas, cursor=resumed) as reader:
                for turn in range(turns * 10):
                    await asyncio.sleep(0)
                    if turn % 7 == turns % 7:
                        reader.reads_on.clear()
                    if turn % 7 == (turns + 3) % 7:
                        reader.reads_on.set()
            assert reader.error is None
        async with world.following(view=view, cursor=view.cursor) as reader:
            await reader.reached(world.log.revision)
        return view

    views = [asyncio.create_task(follow(turns)) for turns in (3, 8, 15, 30, 61)]
    await asyncio.gather(write(), *views)
    whole = await stored(world.store, world.log.task_id)
    for view in views:
        view.result().check(whole)
