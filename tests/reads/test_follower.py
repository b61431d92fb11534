"""What a follow sends, and when: status, entries, `caught_up`, `progress`."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tasklogs.v1 import types_pb2 as types
from tasklogs_server.domain.errors import (
    AgentUnreachable,
    StoreUnavailable,
    TaskAppFailed,
    TaskStateConflict,
)
from tasklogs_server.domain.read_plan import Source
from tasklogs_server.reads import follower
from tasklogs_server.reads.tokens import Cursor
from tests.reads.followed import ACTIVE, FAILED, PAUSED, World, followed
from tests.reads.written_log import entry, many

_SECOND = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def _tries_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "_SYNC_RETRY_SECONDS", 0.02)


async def test_the_status_comes_first_then_the_log_then_caught_up(world: World) -> None:
    await world.log.entries(entry(0, "a"), entry(1, "b"), open_epoch=True)
    async with world.following() as reader:
        await reader.heard("caught_up")
        assert reader.events == ["status", "entries", "caught_up"]
        assert reader.view.contents() == {(1, 0): "a", (1, 1): "b"}


@pytest.mark.parametrize(("tail", "ids"), [(0, []), (1, [2]), (2, [1, 2]), (5, [0, 1, 2])])
async def test_tail_limits_stored_entries_and_not_later_ones(
    world: World, tail: int, ids: list[int]
) -> None:
    await world.log.entries(*many(3), open_epoch=True)
    async with world.following(tail=tail) as reader:
        await reader.heard("caught_up")
        assert [id_ for _, id_ in reader.view.entries] == ids
        await world.log.entries(entry(3, "new"))
        await reader.until(lambda: (1, 3) in reader.view.entries)


async def test_a_task_without_a_log_is_caught_up_at_once_and_its_epochs_come(world: World) -> None:
    async with world.following() as reader:
        await reader.heard("caught_up")
        assert reader.events == ["status", "caught_up"]
        await world.log.entries(entry(0, "a"), open_epoch=True)
        await reader.until(lambda: (1, 0) in reader.view.entries)
        await world.log.entries(entry(0, "b"), open_epoch=True)
        await reader.until(lambda: (2, 0) in reader.view.entries)
        assert reader.view.epochs == [1, 2]


async def test_a_log_of_many_pages_is_sent_whole_before_caught_up(world: World) -> None:
    await world.log.entries(*many(120, size_bytes=40_000), open_epoch=True)
    async with world.following() as reader:
        await reader.heard("caught_up")
        assert reader.events.count("entries") >= 4
        assert reader.events[-1] == "caught_up"
        assert len(reader.view.entries) == 120
        assert all(message.ByteSize() < 3 * 1024 * 1024 for message in reader.messages)


async def test_a_growing_tail_is_sent_as_deltas_if_they_were_requested(world: World) -> None:
    await world.log.entries(entry(0, "a"), open_epoch=True)
    async with world.following(deltas=True) as deltas, world.following() as whole:
        for reader in (deltas, whole):
            await reader.heard("caught_up")
        for index in range(10):
            await world.log.grow(0, "é", keep_bytes=1 + 2 * index)
            await asyncio.gather(*(one.reached(world.log.revision) for one in (deltas, whole)))
        # The first change is sent whole: the new feed did not hold the tail yet.
        assert (deltas.view.deltas, whole.view.deltas) == (9, 0)
        assert deltas.view.entries == whole.view.entries


async def test_a_delta_never_builds_on_a_withdrawn_entry_of_the_same_id(world: World) -> None:
    await world.log.entries(open_epoch=True)
    async with world.following(deltas=True) as reader:
        await reader.heard("caught_up")
        await world.log.entries(entry(0, "first"))
        await reader.reached(world.log.revision)  # and the feed holds it
        world.changes.feeds_read.clear()  # all of it in one read
        await world.log.withdraw(entry(0, "first again"))
        await world.log.grow(0, "!", keep_bytes=11)
        world.changes.feeds_read.set()
        await reader.reached(world.log.revision)
        assert reader.events[-2:] == ["entry_withdrawn", "entries"]
        await world.log.grow(0, "?", keep_bytes=12)
        await reader.reached(world.log.revision)
        assert reader.events[-1] == "delta"
        assert reader.view.contents() == {(1, 0): "first again!?"}


async def test_a_tail_whose_beginning_was_dropped_is_sent_whole(world: World) -> None:
    await world.log.entries(open_epoch=True)
    async with world.following(deltas=True) as reader:
        await reader.heard("caught_up")
        await world.log.entries(entry(0, "a" * 10))
        await reader.reached(world.log.revision)  # and the feed holds it
        world.changes.feeds_read.clear()
        await world.log.entries(entry(0, "a" * 5, dropped_bytes=5))
        await world.log.grow(0, "b", keep_bytes=5)
        world.changes.feeds_read.set()
        await reader.reached(world.log.revision)
        (one,) = reader.view.entries.values()
        assert (one.content, one.dropped_bytes, reader.view.deltas) == ("aaaaab", 5, 0)


async def test_caught_up_comes_after_everything_that_the_sync_appended(world: World) -> None:
    await world.log.entries(entry(0, "a"), open_epoch=True)
    await world.log.report(ACTIVE)
    world.sync.held.clear()
    async with world.following(source=Source.DEFAULT) as reader:
        await reader.heard("entries")
        assert "caught_up" not in reader.events
        await world.log.entries(entry(1, "b"))
        world.sync.held.set()
        await reader.heard("caught_up")
        assert reader.view.contents() == {(1, 0): "a", (1, 1): "b"}
        assert world.sync.calls == 1


async def test_caught_up_waits_through_syncs_that_fail_and_comes_once(world: World) -> None:
    await world.log.report(ACTIVE)
    world.sync.failures = [
        AgentUnreachable(_SECOND, _SECOND),
        TaskAppFailed("bad gateway"),
        StoreUnavailable(_SECOND),
    ]
    async with world.following(source=Source.LIVE) as reader:
        await world.log.entries(entry(0, "a"), open_epoch=True)
        await reader.heard("caught_up")
        assert world.sync.calls == 4
        await world.log.entries(entry(1, "b"))
        await reader.reached(world.log.revision)
        assert reader.events.count("caught_up") == 1


async def test_a_task_that_is_paused_before_its_first_sync_is_caught_up_with_the_store(
    world: World,
) -> None:
    await world.log.report(ACTIVE)
    world.sync.failures = [AgentUnreachable(_SECOND, _SECOND)] * 1000
    async with world.following(source=Source.DEFAULT) as reader:
        await reader.heard("status")
        await world.log.report(PAUSED)
        await reader.heard("caught_up")
        assert reader.view.statuses == [types.TASK_STATUS_ACTIVE, types.TASK_STATUS_PAUSED]


async def test_caught_up_waits_while_the_status_would_refuse_a_read(world: World) -> None:
    await world.log.report(ACTIVE)
    world.sync.failures = [TaskAppFailed("gone")]
    world.sync.held.clear()
    async with world.following(source=Source.DEFAULT) as reader:
        await reader.heard("status")
        await world.log.report(FAILED)
        await reader.heard("status", 2)
        world.sync.held.set()
        await world.log.entries(entry(0, "a"), open_epoch=True)
        await reader.reached(world.log.revision)
        assert "caught_up" not in reader.events
        await world.log.report(ACTIVE)
        await reader.heard("caught_up")


async def test_an_unexpected_failure_ends_the_follow(
    world: World,
) -> None:
    await world.log.report(ACTIVE)
    world.sync.failures = [ZeroDivisionError()]
    async with world.following(source=Source.DEFAULT) as reader:
        assert isinstance(await reader.end(), ZeroDivisionError)


@pytest.mark.parametrize("source", [Source.DEFAULT, Source.LIVE])
async def test_a_refusing_status_refuses_a_new_follow_but_does_not_end_a_running_one(
    world: World, source: Source
) -> None:
    await world.log.report(ACTIVE)
    async with world.following(source=source) as reader:
        await reader.heard("caught_up")
        await world.log.report(FAILED)
        await reader.heard("status", 2)
        async with world.following(source=source) as refused:
            assert isinstance(await refused.end(), TaskStateConflict)
        async with world.following(source=Source.SNAPSHOT) as stored:
            await stored.heard("caught_up")
        await world.log.entries(entry(0, "a"), open_epoch=True)
        await reader.reached(world.log.revision)
        assert reader.view.contents() == {(1, 0): "a"}


async def test_the_first_status_is_current_even_if_the_feed_is_older(
    world: World,
) -> None:
    await world.log.report(PAUSED)
    async with world.following() as first:
        await first.heard("caught_up")
        world.changes.feeds_read.clear()
        await world.log.report(ACTIVE)
        async with world.following() as second:
            await world.log.report(ACTIVE)
            world.changes.feeds_read.set()
            await second.heard("caught_up")
            assert second.view.statuses == [types.TASK_STATUS_ACTIVE]


async def test_progress_is_sent_after_a_quiet_time_with_a_valid_cursor(
    database: str,
) -> None:
    async with followed(database, progress_after=timedelta(milliseconds=50)) as world:
        await world.log.entries(entry(0, "a"), open_epoch=True)
        async with world.following() as reader:
            await reader.heard("caught_up")
            await reader.heard("progress", 3)
            assert reader.but_progress == ["status", "entries", "caught_up"]
            assert reader.messages[-1].cursor == Cursor(world.log.task_id, 2).encode()
            cursor = reader.view.cursor
        await world.log.entries(entry(1, "b"))
        async with world.following(cursor=cursor, view=reader.view) as resumed:
            await resumed.reached(world.log.revision)
            assert resumed.view.contents() == {(1, 0): "a", (1, 1): "b"}


async def test_only_progress_is_sent_while_nothing_changes(database: str) -> None:
    async with followed(database, progress_after=timedelta(milliseconds=20)) as world:
        await world.log.entries(entry(0, "a"), open_epoch=True)
        async with world.following() as reader:
            await reader.heard("caught_up")
            before = world.changes.of_feeds
            await reader.heard("progress", 10)
            assert reader.but_progress == ["status", "entries", "caught_up"]
            assert world.changes.of_feeds == before


SOON = timedelta(milliseconds=50)


async def test_the_caller_chooses_after_which_time_progress_is_sent(world: World) -> None:
    async with world.following(progress_interval=SOON) as reader:
        await reader.heard("caught_up")
        await reader.heard("progress", 3)
        assert reader.but_progress == ["status", "caught_up"]


async def test_progress_is_sent_while_a_sync_waits(world: World) -> None:
    await world.log.report(ACTIVE)
    world.sync.held.clear()
    async with world.following(source=Source.DEFAULT, progress_interval=SOON) as reader:
        await reader.heard("progress", 2)
        assert reader.but_progress == ["status"]
        world.sync.held.set()
        await reader.heard("caught_up")


async def test_progress_is_sent_while_a_follower_catches_up_with_a_slow_store(
    world: World,
) -> None:
    await world.log.entries(entry(0, "a"), open_epoch=True)
    world.changes.followers_read.clear()
    async with world.following(progress_interval=SOON) as reader:
        await reader.heard("progress", 2)
        assert reader.but_progress == ["status"]
        # It has everything up to this cursor, which is nothing.
        assert reader.messages[-1].cursor == reader.messages[0].cursor
        world.changes.followers_read.set()
        await reader.heard("caught_up")
        assert reader.view.contents() == {(1, 0): "a"}


async def test_progress_is_sent_while_the_store_is_away(world: World) -> None:
    await world.log.entries(entry(0, "a"), open_epoch=True)
    world.changes.followers_read.clear()
    async with world.following(progress_interval=SOON) as reader:
        await reader.heard("status")
        world.changes.is_away = True
        world.changes.followers_read.set()
        await reader.heard("progress", 3)
        world.changes.is_away = False
        await reader.heard("caught_up")
        assert reader.view.contents() == {(1, 0): "a"}


async def test_wakes_without_a_message_do_not_postpone_progress(world: World) -> None:
    async with world.following(progress_interval=SOON) as reader:
        await reader.heard("caught_up")
        [(feed, _)] = world.follows._feeds.values()

        async def wake() -> None:
            while True:
                feed._broadcast()
                await asyncio.sleep(0)

        waking = asyncio.create_task(wake())
        await reader.heard("progress", 2)
        waking.cancel()
        await asyncio.wait([waking])


async def test_a_follow_that_is_left_while_it_reads_leaves_no_task(world: World) -> None:
    await world.log.entries(entry(0, "a"), open_epoch=True)
    world.changes.followers_read.clear()
    async with world.following(progress_interval=SOON) as reader:
        await reader.heard("progress")
    world.changes.followers_read.set()


async def test_only_the_first_status_has_the_tasks_uuid(world: World) -> None:
    await world.log.report(ACTIVE)
    async with world.following() as reader:
        await reader.heard("caught_up")
        await world.log.report(PAUSED)
        await reader.heard("status", 2)
        ids = [one.status.task_id for one in reader.messages if one.HasField("status")]
        assert ids == [str(world.log.task_id), ""]
