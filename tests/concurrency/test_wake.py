from __future__ import annotations

import asyncio

from tasklogs_server.concurrency.wake import Wake


async def test_a_wait_lasts_until_the_next_set() -> None:
    wake = Wake()
    waiting = asyncio.ensure_future(wake.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    wake.set()
    await waiting


async def test_no_wait_lasts_between_set_and_clear() -> None:
    wake = Wake()
    wake.set()
    wake.set()
    await wake.wait()
    await wake.wait()
    wake.clear()
    assert not asyncio.ensure_future(wake.wait()).done()


async def test_a_set_that_is_cleared_at_once_wakes_the_waiter() -> None:
    wake = Wake()
    waiting = asyncio.ensure_future(wake.wait())
    wake.set()
    wake.clear()
    await waiting


async def test_a_waiter_that_was_cancelled_leaves_the_wake_usable() -> None:
    wake = Wake()

    async def wait() -> None:
        await wake.wait()

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    wake.set()
    await wake.wait()
