"""The time in which a follow has sent nothing."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from tasklogs_server.reads.silence import Silence
from tests.support.fixtures.conditions import DEADLINE_SECONDS

LIMIT = timedelta(seconds=0.1)
HOUR = timedelta(hours=1)


async def test_it_is_over_after_its_limit_and_then_wakes() -> None:
    woken, loop = asyncio.Event(), asyncio.get_running_loop()
    began = loop.time()
    silence = Silence(LIMIT, woken)
    silence.watch()
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not silence.is_over:  # a loop may fire a timer a moment early
            silence.watch()
            await woken.wait()
            woken.clear()
    assert loop.time() - began >= LIMIT.total_seconds()
    silence.stop()


async def test_a_message_begins_it_again_with_the_same_timer() -> None:
    woken = asyncio.Event()
    silence = Silence(LIMIT, woken)
    silence.watch()
    timer = silence._timer
    for _ in range(3):
        silence.wrote()
        silence.watch()
        assert silence._timer is timer
    silence.stop()


async def test_work_that_is_done_first_is_not_waited_for_any_longer() -> None:
    silence = Silence(HOUR, asyncio.Event())
    work = asyncio.ensure_future(asyncio.sleep(0))
    assert not await silence.is_over_before(work)

    endless = asyncio.get_running_loop().create_future()
    assert await Silence(timedelta(0), asyncio.Event()).is_over_before(endless)
    silence.stop()
