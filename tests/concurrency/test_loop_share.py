"""Work under a share is done piece by piece, and leaves most of the time to others."""

from __future__ import annotations

import asyncio

import pytest

from tasklogs_server.concurrency.loop_share import LoopShare


async def turns(counted: list[int]) -> None:
    while True:
        counted[0] += 1
        await asyncio.sleep(0)


async def test_all_items_are_taken_in_order_and_others_have_turns_between_the_pieces() -> None:
    counted = [0]
    other = asyncio.create_task(turns(counted))
    seen, turns_at_piece = [], []
    async for piece in LoopShare().take(iter(range(7)), 3):
        seen.append(piece)
        turns_at_piece.append(counted[0])
    other.cancel()
    assert seen == [[0, 1, 2], [3, 4, 5], [6]]
    assert turns_at_piece == sorted(set(turns_at_piece))


async def test_after_a_piece_comes_a_rest_of_twice_its_time_for_all_callers() -> None:
    assert await rests_after(0.001) == pytest.approx([0.0, 0.002, 0.002])


async def test_after_a_piece_in_which_the_process_was_stopped_comes_a_short_rest() -> None:
    assert await rests_after(30.0) == pytest.approx([0.0, 0.1, 0.1])


async def rests_after(piece_seconds: float) -> list[float]:
    """Return how long three callers rest, if each has a piece of work that takes so long."""
    now = [0.0]
    share = LoopShare(clock=lambda: now[0])
    rests: list[float] = []

    def piece() -> None:
        now[0] += piece_seconds

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        now[0] += seconds

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tasklogs_server.concurrency.loop_share.asyncio.sleep", rest)
        await asyncio.gather(*(share.run(piece) for _ in range(3)))
    return rests


async def test_a_piece_that_fails_ends_only_its_caller() -> None:
    share = LoopShare()
    with pytest.raises(ZeroDivisionError):
        await share.run(lambda: 1 // 0)
    assert await share.run(lambda: 7) == 7
