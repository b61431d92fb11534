"""Commits of this process: a feed uses them without a read if it knows the log before them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tasklogs_server.reads import feed as feeds
from tasklogs_server.store import Store
from tasklogs_server.store.log_changes import Change, EntriesChanged, changes_of
from tasklogs_server.store.records import TailHead
from tests.reads.followed import ACTIVE, World
from tests.reads.written_log import WrittenLog, entry, stored
from tests.store.test_log_changes import Scribe, histories


@pytest.fixture
async def world(world: World) -> World:
    world.log.hands_on_commits = True
    return world


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(history=histories)
async def test_a_commit_yields_the_changes_that_a_read_after_its_base_finds(
    store: Store, history: list[Any]
) -> None:
    log, scribe = await WrittenLog.open(store), Scribe()
    for what in history:
        before = len(log.commits)
        if what == "fold":
            await log.fold()
        elif what == "reopen":
            await log.reopen()
        else:
            await log.append(*(scribe.append(step) for step in what))
        for commit in log.commits[before:]:
            base = commit.base_revision
            read = await store.changes.since(log.task_id, base, held_revision=base)
            tail = commit.head.tail
            assert read.task.head.tail == tail
            assert _said(changes_of(commit), tail) == _said(read.changes, tail)


async def test_changes_committed_here_reach_many_followers_without_a_read(world: World) -> None:
    await world.log.entries(entry(0, ""), open_epoch=True)
    async with AsyncExitStack() as stack:
        readers = [
            await stack.enter_async_context(world.following(deltas=index % 2 == 0))
            for index in range(20)
        ]
        await asyncio.gather(*(one.heard("caught_up") for one in readers))
        await world.log.entries(entry(1, "x"))  # from here on the feed holds the tail
        reads = world.changes.of_feeds, world.changes.of_followers
        for index in range(1, 6):
            await world.log.grow(1, "x", keep_bytes=index)
            await asyncio.gather(*(one.reached(world.log.revision) for one in readers))
        await world.log.entries(entry(2, "y"), entry(3, "z"))
        await world.log.withdraw(entry(3, "w"))
        await world.log.entries(entry(0, "a"), open_epoch=True)
        await asyncio.gather(*(one.reached(world.log.revision) for one in readers))
        assert (world.changes.of_feeds, world.changes.of_followers) == reads
        assert all(one.view.deltas == 5 for one in readers[::2])
        whole = await stored(world.store, world.log.task_id)
        for one in readers:
            one.view.check(whole)


async def test_growth_of_a_tail_that_the_feed_lacks_is_read_once_and_later_growth_is_not(
    world: World,
) -> None:
    await world.log.entries(entry(0, "a"), open_epoch=True)
    async with world.following(deltas=True) as reader:
        await reader.heard("caught_up")
        reads = world.changes.of_feeds
        for index, text in enumerate("bcd"):
            await world.log.grow(0, text, keep_bytes=1 + index)
            await reader.reached(world.log.revision)
        assert world.changes.of_feeds == reads + 1
        assert reader.view.contents() == {(1, 0): "abcd"}


async def test_a_commit_while_the_feed_reads_is_read_after_it(world: World) -> None:
    await world.log.entries(entry(0, "a"), open_epoch=True)
    async with world.following() as reader:
        await reader.heard("caught_up")
        world.changes.feeds_read.clear()
        await world.log.report(ACTIVE)  # the feed reads, and its read is stopped
        reads = world.changes.of_feeds
        for index, text in enumerate("bc"):
            await world.log.grow(0, text, keep_bytes=1 + index)
        world.changes.feeds_read.set()
        await reader.reached(world.log.revision)
        await reader.until(lambda: len(reader.view.statuses) == 2)
        assert reader.view.contents() == {(1, 0): "abc"}
        assert world.changes.of_feeds > reads


async def test_a_commit_whose_base_the_feed_lacks_makes_it_read_the_store(
    world: World,
) -> None:
    """For example, after a commit of another process whose note was lost."""
    async with world.following() as reader:
        await reader.heard("caught_up")
        publish, world.bus.publish = world.bus.publish, lambda note: None  # type: ignore[method-assign]
        await world.log.entries(entry(0, "a"), open_epoch=True)
        world.bus.publish = publish  # type: ignore[method-assign]
        await world.log.entries(entry(1, "b"))
        await reader.reached(world.log.revision)
        assert reader.view.contents() == {(1, 0): "a", (1, 1): "b"}


async def test_a_commit_that_the_feed_cannot_use_is_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the group commit nor a follow ends because of it."""

    def fails(*_: object) -> list[Change]:
        raise ValueError("made for the test")

    async with world.following() as reader:
        await reader.heard("caught_up")
        monkeypatch.setattr(feeds, "changes_of", fails)
        await world.log.entries(entry(0, "a"), open_epoch=True)
        await reader.reached(world.log.revision)
        assert reader.view.contents() == {(1, 0): "a"}


def _said(changes: Sequence[Change], tail: TailHead | None) -> list[Change]:
    """Leave out what is not used: the content of the last entry if there is no tail."""
    return [
        replace(one, tail_content=None) if isinstance(one, EntriesChanged) and not tail else one
        for one in changes
    ]
