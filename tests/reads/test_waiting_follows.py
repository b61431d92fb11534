"""I7: what a follow holds while it waits for room for its next messages."""

from __future__ import annotations

import asyncio
import tracemalloc
from contextlib import aclosing

import pytest

from tasklogs_server.concurrency.wake import Settable
from tests.reads.followed import PAUSED, World
from tests.reads.written_log import entry
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until

MIB = 1024 * 1024
_READ_BYTES = 64 * 1024


class NoRoom:
    """Lets a follow read the store, and refuses room for the messages that it made."""

    def __init__(self) -> None:
        self.waits = asyncio.Event()
        self.asked = 0
        """How often the follow asked whether its turn had come."""
        self.is_granted = False
        self._woken: Settable | None = None

    @property
    def is_waiting(self) -> bool:
        self.asked += 1
        return self.waits.is_set()

    def grant(self) -> None:
        """Give room for anything."""
        self.waits.clear()
        self.is_granted = True
        assert self._woken is not None
        self._woken.set()

    def acquire(self, size_bytes: int, woken: Settable) -> bool:
        if self.is_granted:
            return True
        self._woken = woken
        if size_bytes > _READ_BYTES:
            self.waits.set()
        return not self.is_waiting

    def release(self) -> None:
        assert self.is_granted, "nothing may be sent"


@pytest.mark.parametrize("kept_up", [False, True])
async def test_follows_that_wait_for_room_hold_no_message(world: World, *, kept_up: bool) -> None:
    """15 follows, each at another change of a tail of 1 MiB: no two could share a message."""
    await world.log.entries(entry(0, "x" * MIB), open_epoch=True)
    budgets = [NoRoom() for _ in range(15)]
    follows = []

    async def follow(budget: NoRoom) -> None:
        tail = 0 if kept_up else None
        async with aclosing(world.stream(budget=budget, tail=tail)) as stream:
            async for _ in stream:
                pass

    tracemalloc.start(1)
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number, budget in enumerate(budgets):
            follows.append(asyncio.create_task(follow(budget)))
            await until(lambda: world.follows.followers == len(follows))
            await world.log.entries(entry(0, str(number).ljust(MIB, ".")))
            await asyncio.wait_for(budget.waits.wait(), DEADLINE_SECONDS)
        world.encoded.clear()  # what the tests' own records hold
        world.log.commits.clear()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        for one in follows:
            one.cancel()
        await asyncio.gather(*follows, return_exceptions=True)
    # The feed has the tail, its last change and that change's message.
    assert held - before < 6 * MIB


async def test_follows_that_wait_for_room_are_not_woken_by_changes(world: World) -> None:
    await world.log.entries(entry(0, "x" * 2 * _READ_BYTES), open_epoch=True)
    budget = NoRoom()
    async with world.following() as keeps_up, world.following(budget=budget) as waits:
        await keeps_up.heard("caught_up")
        await asyncio.wait_for(budget.waits.wait(), DEADLINE_SECONDS)
        await until(lambda: not any(map(_finds_its_start, asyncio.all_tasks())))
        for _ in range(10):
            await asyncio.sleep(0)
        asked = budget.asked
        for hands_on_commits in (True, False):
            world.log.hands_on_commits = hands_on_commits
            for number in range(1, 11):
                await world.log.entries(entry(world.log.revision, str(number)))
                await keeps_up.reached(world.log.revision)
        assert budget.asked == asked

        await world.log.report(PAUSED)  # but by a change of the status
        await waits.heard("status", 2)
        assert budget.asked > asked

        budget.grant()
        await waits.reached(world.log.revision)
        assert waits.view.entries == keeps_up.view.entries


def _finds_its_start(task: asyncio.Task[object]) -> bool:
    """Whether a follow finds out what was there when it began: that wakes it once."""
    return task.get_name() == "follow catches up"
