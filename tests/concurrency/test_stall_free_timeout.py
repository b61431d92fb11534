"""An answer that this process was too busy to read is not late."""

from __future__ import annotations

import asyncio
import time

import pytest

from tasklogs_server.concurrency.stall_free_timeout import is_done_within, stall_free_timeout
from tests.support.fixtures.conditions import DEADLINE_SECONDS

LIMIT_SECONDS = 0.4


async def test_work_that_never_ends_is_late_and_goes_on() -> None:
    never = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert not await is_done_within(LIMIT_SECONDS, never)
    assert not never.done()


async def test_a_block_that_never_ends_is_cancelled() -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        with pytest.raises(TimeoutError):
            async with stall_free_timeout(LIMIT_SECONDS):
                await asyncio.get_running_loop().create_future()


async def test_a_block_that_ends_or_fails_in_time_does_so() -> None:
    async with stall_free_timeout(LIMIT_SECONDS):
        await asyncio.sleep(0)
    with pytest.raises(ValueError, match="it"):
        async with stall_free_timeout(LIMIT_SECONDS):
            raise ValueError("it")


async def test_work_that_fails_is_done() -> None:
    failed = asyncio.get_running_loop().create_future()
    failed.set_exception(ValueError())
    assert await is_done_within(LIMIT_SECONDS, failed)
    assert isinstance(failed.exception(), ValueError)


async def test_turns_in_which_the_process_was_stalled_do_not_count() -> None:
    """The work needs five turns, and each takes half of the limit."""

    async def work() -> None:
        for _ in range(5):
            time.sleep(LIMIT_SECONDS / 2)  # noqa: ASYNC251 - the stall
            await asyncio.sleep(0)

    assert await is_done_within(LIMIT_SECONDS, asyncio.ensure_future(work()))
    async with stall_free_timeout(LIMIT_SECONDS):
        await work()
