"""How follows end, and what does not end them."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import timedelta

import asyncpg
import pytest

from tasklogs_server.bus.local import LocalBus
from tasklogs_server.bus.notes import Deleted
from tasklogs_server.domain.errors import (
    CursorExpired,
    InvalidFields,
    LogCorrupt,
    ServerDraining,
    TaskNotFound,
)
from tasklogs_server.reads import feed, follower
from tasklogs_server.reads.tokens import Cursor
from tests.reads.followed import World
from tests.reads.written_log import WrittenLog, entry, many
from tests.support.fixtures.conditions import DEADLINE_SECONDS

_DRAINING = ServerDraining(timedelta(seconds=1))


@pytest.fixture(autouse=True)
def _tries_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (feed, follower):
        monkeypatch.setattr(module, "_STORE_RETRY_SECONDS", 0.02)


async def _delete(world: World) -> None:
    await world.store.tasks.delete(world.log.task_id)
    world.bus.publish(Deleted(world.log.task_id))


async def test_a_deleted_task_ends_all_its_follows(world: World) -> None:
    await world.log.entries(entry(0, "a"), open_epoch=True)
    async with world.following() as one, world.following() as other:
        await one.heard("caught_up")
        await _delete(world)
        assert isinstance(await one.end(), TaskNotFound)
        assert isinstance(await other.end(), TaskNotFound)


async def test_a_deletion_whose_note_was_lost_is_found_in_the_store(world: World) -> None:
    async with world.following() as reader:
        await reader.heard("caught_up")
        await world.store.tasks.delete(world.log.task_id)
        world.follows._feeds[world.log.task_id][0].wake()
        assert isinstance(await reader.end(), TaskNotFound)


async def test_a_task_deleted_while_a_follow_begins_ends_it(world: World) -> None:
    begin = world.changes.start

    async def deleted_after(*args: object) -> object:
        begun = await begin(*args)  # type: ignore[arg-type]
        await _delete(world)
        return begun

    world.changes.start = deleted_after  # type: ignore[assignment,method-assign]
    async with world.following() as reader:
        assert isinstance(await reader.end(), TaskNotFound)


async def test_a_drain_ends_all_follows_and_refuses_new_ones(world: World) -> None:
    async with world.following() as reader:
        await reader.heard("caught_up")
        world.follows.drain(_DRAINING)
        assert await reader.end() is _DRAINING
        async with world.following() as late:
            assert await late.end() is _DRAINING


async def test_a_drain_ends_a_follow_that_is_just_beginning(world: World) -> None:
    begin = world.changes.start

    async def drained_after(*args: object) -> object:
        begun = await begin(*args)  # type: ignore[arg-type]
        world.follows.drain(_DRAINING)
        return begun

    world.changes.start = drained_after  # type: ignore[assignment,method-assign]
    async with world.following() as reader:
        assert await reader.end() is _DRAINING


async def test_a_drain_ends_a_follow_that_reads_page_after_page(world: World) -> None:
    await world.log.entries(*many(100, size_bytes=50_000), open_epoch=True)
    stream = world.stream()
    async with aclosing(stream):
        await anext(stream)
        await anext(stream)  # a page, and there are more
        world.follows.drain(_DRAINING)
        with pytest.raises(ServerDraining):
            await anext(stream)


async def test_a_store_that_is_away_ends_no_follow(world: World) -> None:
    await world.log.entries(entry(0, "a"), open_epoch=True)
    async with world.following() as one, world.following() as slow:
        await asyncio.gather(one.heard("caught_up"), slow.heard("caught_up"))
        slow.reads_on.clear()
        for index in range(3):
            await world.log.grow(0, "b", keep_bytes=1 + index)
            await one.reached(world.log.revision)
        world.changes.is_away = True
        slow.reads_on.set()  # it reads the store
        await world.log.entries(entry(1, "c"))
        for _ in range(6):  # feed and follower try again and again
            await asyncio.wait_for(world.changes.refusals.get(), DEADLINE_SECONDS)
        assert not one.ended
        assert not slow.ended
        world.changes.is_away = False
        await asyncio.gather(one.reached(world.log.revision), slow.reached(world.log.revision))
        assert one.view.entries == slow.view.entries


async def test_a_task_deleted_while_the_store_is_away_ends_its_follows(world: World) -> None:
    async with world.following() as reader:
        await reader.heard("caught_up")
        world.changes.is_away = True
        await world.log.entries(entry(0, "a"), open_epoch=True)
        await _delete(world)
        assert isinstance(await reader.end(), TaskNotFound)


async def test_a_failed_feed_does_not_fail_later_follows(world: World, database: str) -> None:
    await world.log.entries(entry(0, "a"), open_epoch=True)
    await world.log.grow(0, "b", keep_bytes=1)
    sql = await asyncpg.connect(database)
    try:
        async with world.following() as lingers:
            await lingers.heard("caught_up")
            lingers.reads_on.clear()  # it stays open
            await world.log.grow(0, "c", keep_bytes=2)
            await sql.execute("UPDATE log_tail_parts SET keep_bytes = keep_bytes + 100")
            async with world.following() as corrupt:
                assert isinstance(await corrupt.end(), LogCorrupt)
            await sql.execute("UPDATE log_tail_parts SET keep_bytes = keep_bytes - 100")
            async with world.following() as after:
                await after.heard("caught_up")
                assert after.view.contents() == {(1, 0): "abc"}
    finally:
        await sql.close()


async def test_a_backup_restored_under_the_server_expires_all_cursors(
    world: World, database: str
) -> None:
    await world.log.entries(*many(5), open_epoch=True)
    sql = await asyncpg.connect(database)
    try:
        async with world.following() as reader:
            await reader.heard("caught_up")
            await sql.execute("DELETE FROM log_entries WHERE ordinal = 4")
            await sql.execute("UPDATE log_heads SET revision = 5, entries = 4")
            world.follows._feeds[world.log.task_id][0].wake()
            error = await reader.end()
            assert isinstance(error, CursorExpired)
            assert error.oldest == Cursor(world.log.task_id, 0).encode()
    finally:
        await sql.close()


async def test_a_cursor_beyond_the_log_expires_and_the_error_has_the_oldest_valid_one(
    world: World,
) -> None:
    await world.log.entries(entry(0, "a"), open_epoch=True)  # revision 2
    async with world.following(cursor=Cursor(world.log.task_id, 3)) as reader:
        error = await reader.end()
        assert isinstance(error, CursorExpired)
        assert error.oldest is not None
    async with world.following(cursor=error.oldest) as oldest:
        await oldest.heard("caught_up")
        assert oldest.events == ["status", "epoch_started", "entries", "caught_up"]
    async with world.following(cursor=Cursor(world.log.task_id, 2)) as now:
        await now.heard("caught_up")
        assert now.events == ["status", "caught_up"]


async def test_a_cursor_of_another_task_is_refused(world: World) -> None:
    other = await WrittenLog.open(world.store)
    async with world.following(cursor=Cursor(other.task_id, 0)) as reader:
        error = await reader.end()
        assert isinstance(error, InvalidFields)
        assert [one.field for one in error.violations] == ["cursor"]


async def test_every_cursor_of_a_stream_resumes_without_gap_or_repeat(world: World) -> None:
    """This includes the cursors between the messages of one page."""
    log: WrittenLog = world.log
    await log.entries(entry(0, "a"), entry(1, "b"), open_epoch=True)
    await log.withdraw(entry(3, "d"))
    await log.grow(3, "e", keep_bytes=1)
    await log.entries(entry(0, "A"), open_epoch=True)
    async with world.following(cursor=Cursor(log.task_id, 0)) as whole:
        await whole.heard("caught_up")
    for index, message in enumerate(whole.messages):
        async with world.following(cursor=message.cursor) as rest:
            await rest.heard("caught_up")
        sent = [one for one in rest.messages if not one.HasField("status")]
        expected = [one for one in whole.messages[index + 1 :] if not one.HasField("caught_up")]
        assert sent[:-1] == expected


async def test_a_follow_continues_after_a_lost_note(world: World) -> None:
    """The slow timer makes the feed read the store."""
    log = world.log
    silent = WrittenLog(world.store, LocalBus(), log.task_id, log.fence, log.draft)
    async with world.following() as reader:
        await reader.heard("caught_up")
        world.follows._feeds[world.log.task_id][0]._poll_seconds = 0.05
        world.follows._feeds[world.log.task_id][0].wake()
        await silent.entries(entry(0, "a"), open_epoch=True)
        await reader.until(lambda: (1, 0) in reader.view.entries)
