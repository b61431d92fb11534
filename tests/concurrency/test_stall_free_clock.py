"""Time passes with the looks of its reader: a stall of the process counts as one look."""

from __future__ import annotations

import time

import pytest

from tasklogs_server.concurrency.stall_free_clock import StallFreeClock


async def test_a_stall_counts_as_one_look() -> None:
    clock = StallFreeClock(0.08)
    await clock.next_look()
    time.sleep(0.3)  # noqa: ASYNC251 - the stall
    assert await clock.next_look() == pytest.approx(0.02)


async def test_nothing_has_lasted_longer_by_this_clock_than_by_the_wall_clock() -> None:
    clock = StallFreeClock(0.08)
    began = time.monotonic()
    begin_at = clock.begin_at
    for _ in range(10):
        looked_at = await clock.next_look()
        assert looked_at - begin_at <= time.monotonic() - began


async def test_what_begins_between_two_looks_is_due_within_two_looks_more_than_its_time() -> None:
    timeout_seconds = 0.08
    clock = StallFreeClock(timeout_seconds)
    for _ in range(3):
        await clock.next_look()
    begin_at = clock.begin_at
    looks = 0
    while clock.looked_at - begin_at <= timeout_seconds:
        await clock.next_look()
        looks += 1
    assert looks <= 8 + 2
    assert clock.looked_at >= clock.begin_at - timeout_seconds / 8
