"""What each follower pays for a change, in calls: a count that holds at any load."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from contextlib import aclosing
from types import FrameType

from tests.reads.followed import World
from tests.reads.written_log import entry
from tests.support.fixtures.conditions import until


async def test_a_change_costs_a_follower_few_calls(world: World) -> None:
    await world.log.entries(entry(0, ""), open_epoch=True)
    received = 0

    async def follow() -> None:
        nonlocal received
        async with aclosing(world.stream()) as stream:
            async for _ in stream:
                received += 1

    followers = [asyncio.create_task(follow()) for _ in range(100)]
    try:
        await until(lambda: received == 300)  # status, the entry, caught_up
        calls: Counter[str] = Counter()

        def count(frame: FrameType, event: str, _: object) -> None:
            where = frame.f_code.co_filename
            if event == "call" and (
                "/tasklogs_server/" in where or where.endswith("asyncio/locks.py")
            ):
                calls[frame.f_code.co_name] += 1

        await world.log.entries(entry(1, "y"))
        await until(lambda: received == 400)
        sys.setprofile(count)
        try:
            await world.log.entries(entry(2, "y"))
            await until(lambda: received == 500)
        finally:
            sys.setprofile(None)
        paid_by_all = {name: number for name, number in calls.items() if number >= 100}
        assert sum(paid_by_all.values()) <= 100 * 14, paid_by_all
    finally:
        for one in followers:
            one.cancel()
        await asyncio.gather(*followers, return_exceptions=True)
