"""I7: what a feed holds while nothing changes, and what followers get after it was released."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from tasklogs_server.limits import tail_budget
from tests.reads.follow_reader import Reader
from tests.reads.followed import World
from tests.reads.written_log import WrittenLog, entry
from tests.support.fixtures.conditions import until

MIB = 1024 * 1024


async def test_the_feeds_of_30_idle_tasks_hold_no_tail(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(30):
            log = await WrittenLog.open(world.store, world.bus)
            log.hands_on_commits = True
            reader = await stack.enter_async_context(world.following(log=log, deltas=True))
            await reader.heard("caught_up")
            await log.entries(entry(0, "x" * MIB), open_epoch=True)
            await reader.reached(log.revision)
        world.tails.release()
        assert world.tails.held_bytes >= 29 * MIB  # they changed a moment ago

        monkeypatch.setattr(tail_budget, "_IDLE_SECONDS", 0.0)
        world.tails.release()

        assert world.tails.held_bytes == 0


@pytest.mark.parametrize("hands_on_commits", [True, False])
async def test_a_delta_follows_a_released_tail(world: World, hands_on_commits: bool) -> None:
    world.log.hands_on_commits = hands_on_commits
    await world.log.entries(entry(0, "a" * 1000), open_epoch=True)
    async with world.following(deltas=True) as deltas, world.following() as whole:
        for one in (deltas, whole):
            await one.heard("caught_up")
        await world.log.grow(0, "b", keep_bytes=1000)
        await _reached([deltas, whole], world.log.revision)
        received = deltas.view.deltas
        for index, text in enumerate("cd", start=1001):
            released(world)
            await world.log.grow(0, text, keep_bytes=index)
            await _reached([deltas, whole], world.log.revision)

        assert deltas.view.deltas == received + 2
        assert deltas.view.entries == whole.view.entries
        assert deltas.view.contents() == {(1, 0): "a" * 1000 + "bcd"}


async def test_a_whole_entry_follows_a_released_tail_that_was_replaced(world: World) -> None:
    await world.log.entries(entry(0, "a" * 1000), open_epoch=True)
    async with world.following(deltas=True) as deltas, world.following() as whole:
        for one in (deltas, whole):
            await one.heard("caught_up")
        await world.log.grow(0, "b", keep_bytes=1000)
        await _reached([deltas, whole], world.log.revision)
        received = deltas.view.deltas
        released(world)
        await world.log.entries(entry(0, "c" * 500))
        await _reached([deltas, whole], world.log.revision)

        assert deltas.view.deltas == received
        assert deltas.view.contents() == {(1, 0): "c" * 500}
        assert deltas.view.entries == whole.view.entries


async def test_a_tail_is_not_released_during_a_read_that_continues_it(world: World) -> None:
    await world.log.entries(entry(0, "a"), open_epoch=True)
    async with world.following(deltas=True) as reader:
        await reader.heard("caught_up")
        await world.log.grow(0, "b", keep_bytes=1)
        await reader.reached(world.log.revision)
        world.changes.feeds_read.clear()
        reads = world.changes.of_feeds
        await world.log.grow(0, "c", keep_bytes=2)
        await until(lambda: world.changes.of_feeds > reads)

        released(world, held=True)

        world.changes.feeds_read.set()
        await reader.reached(world.log.revision)
        assert reader.view.contents() == {(1, 0): "abc"}


def released(world: World, *, held: bool = False) -> None:
    """Release all tails as if they had been idle; `held`: they must stay."""
    for feed, _ in world.follows._feeds.values():
        feed.release_tail()
    assert bool(world.tails.held_bytes) == held


async def _reached(readers: list[Reader], revision: int) -> None:
    await asyncio.gather(*(one.reached(revision) for one in readers))
