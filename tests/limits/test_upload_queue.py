"""Turns of uploads: few at a time, in order, and none waits without a limit."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from tasklogs_server.domain.errors import LimitExceeded
from tasklogs_server.domain.limits import Limit
from tasklogs_server.limits.upload_queue import UploadQueue
from tests.support.fixtures.conditions import DEADLINE_SECONDS

MIB = 1024 * 1024


def queue(
    *, at_work: int = 1, queued_bytes: int = 10 * MIB, wait: float = DEADLINE_SECONDS
) -> UploadQueue:
    return UploadQueue(at_work=at_work, queued_bytes=queued_bytes, max_wait=timedelta(seconds=wait))


async def test_only_so_many_are_at_work_and_the_others_follow_in_order() -> None:
    uploads, at_work, most, order = queue(at_work=2), 0, 0, []

    async def upload(number: int) -> None:
        nonlocal at_work, most
        async with uploads.turn(MIB):
            at_work += 1
            most = max(most, at_work)
            order.append(number)
            await asyncio.sleep(0)
            at_work -= 1

    await asyncio.gather(*map(upload, range(8)))
    assert (most, order) == (2, list(range(8)))
    assert uploads.held_bytes == 0


async def test_more_bytes_than_may_wait_are_refused_at_once() -> None:
    uploads = queue()
    async with uploads.turn(4 * MIB):
        waiting = asyncio.create_task(hold(uploads, 6 * MIB))
        await asyncio.sleep(0)
        with pytest.raises(LimitExceeded) as refused:
            await hold(uploads, 1)
        assert refused.value.limit is Limit.QUEUED_UPLOAD_BYTES
        assert refused.value.retry_after is not None
    await waiting
    await hold(uploads, 20 * MIB)  # one alone always fits
    assert uploads.held_bytes == 0


async def test_small_ones_count_with_what_a_call_takes() -> None:
    uploads = queue(queued_bytes=MIB)
    async with uploads.turn(MIB - 64 * 1024):
        waiting = asyncio.create_task(hold(uploads, 1))
        await asyncio.sleep(0)
        with pytest.raises(LimitExceeded):
            await hold(uploads, 1)
    await waiting


async def test_an_upload_in_parts_waits_for_its_turn_and_its_bytes_are_not_counted() -> None:
    uploads = queue(queued_bytes=MIB)
    async with uploads.turn(MIB):
        waiting = asyncio.create_task(hold(uploads, 0))
        await asyncio.sleep(0)
        assert not waiting.done()
        assert uploads.held_bytes == MIB
    await waiting


async def test_a_turn_that_does_not_come_in_time_is_refused() -> None:
    uploads = queue(wait=0.01)
    async with uploads.turn(MIB):
        with pytest.raises(LimitExceeded) as refused:
            await hold(uploads, MIB)
        assert refused.value.limit is Limit.UPLOADS_AT_WORK
        assert refused.value.retry_after is not None
        assert uploads.held_bytes == MIB
    await hold(uploads, MIB)


async def test_one_that_leaves_the_queue_gives_its_bytes_back() -> None:
    uploads = queue()
    async with uploads.turn(MIB):
        waiting = asyncio.create_task(hold(uploads, MIB))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert uploads.held_bytes == MIB
    await hold(uploads, MIB)


async def hold(uploads: UploadQueue, size_bytes: int) -> None:
    async with uploads.turn(size_bytes):
        pass


async def test_one_upload_of_a_task_at_a_time() -> None:
    uploads, task_id = queue(), uuid4()
    with uploads.only_one(task_id):
        uploads.check(uuid4())
        with pytest.raises(LimitExceeded) as refused:
            uploads.check(task_id)
        with pytest.raises(LimitExceeded), uploads.only_one(task_id):
            pass
        with pytest.raises(LimitExceeded):
            uploads.check(task_id)
    assert refused.value.limit is Limit.UPLOADS
    uploads.check(task_id)
