"""The time in which a follow has sent nothing."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from tasklogs_server.reads.silence import Silence
from tests.support.fixtures.conditions import DEADLINE_SECONDS

LIMIT = timedelta(seconds=0.1)
HOUR = timedelta(hours=1)
# A loop may fire a timer a moment early.
EARLY_SECONDS = 0.002


async def test_it_is_over_after_its_limit_and_then_wakes() -> None:
    woken, loop = asyncio.Event(), asyncio.get_running_loop()
    silence = Silence(LIMIT, woken)
    began = loop.time()
    silence.wrote()
    seen = [silence.is_over]

    await asyncio.wait_for(woken.wait(), DEADLINE_SECONDS)

    assert loop.time() - began >= LIMIT.total_seconds() - EARLY_SECONDS
    seen.append(silence.is_over)
    silence.wrote()
    assert [*seen, silence.is_over] == [False, True, False]
    silence.stop()


async def test_a_message_begins_it_again_with_the_same_timer() -> None:
    silence = Silence(HOUR, asyncio.Event())
    silence.wrote()
    timer = silence._timer
    for _ in range(3):
        silence.wrote()
        assert silence._timer is timer
    silence.stop()


async def test_a_message_postpones_the_end() -> None:
    woken, loop = asyncio.Event(), asyncio.get_running_loop()
    silence = Silence(LIMIT, woken)
    silence.wrote()
    await asyncio.sleep(LIMIT.total_seconds() / 2)
    last = loop.time()
    silence.wrote()

    await asyncio.wait_for(woken.wait(), DEADLINE_SECONDS)

    assert loop.time() - last >= LIMIT.total_seconds() - EARLY_SECONDS
    silence.stop()


async def test_work_that_is_done_first_is_not_waited_for_any_longer() -> None:
    silence = Silence(HOUR, asyncio.Event())
    work = asyncio.ensure_future(asyncio.sleep(0))
    assert not await silence.is_over_before(work)

    endless = asyncio.get_running_loop().create_future()
    assert await Silence(timedelta(0), asyncio.Event()).is_over_before(endless)
    silence.stop()
