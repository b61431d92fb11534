"""I7: what a follow holds while it waits for room for its next messages."""

from __future__ import annotations

import asyncio
import tracemalloc
from contextlib import aclosing

import pytest

from tasklogs_server.concurrency.wake import Settable
from tests.reads.followed import World
from tests.reads.written_log import entry
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until

MIB = 1024 * 1024
_READ_BYTES = 64 * 1024


class NoRoom:
    """Lets a follow read the store, and refuses room for the messages that it made."""

    def __init__(self) -> None:
        self.waits = asyncio.Event()

    @property
    def is_waiting(self) -> bool:
        return self.waits.is_set()

    def acquire(self, size_bytes: int, woken: Settable) -> bool:
        if size_bytes > _READ_BYTES:
            self.waits.set()
        return not self.is_waiting

    def release(self) -> None:
        raise AssertionError("nothing was sent")


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
