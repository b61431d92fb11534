"""Several attempts at the same thing, of which the first success counts."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tasklogs_server.concurrency.first_success import first_success

SOON = timedelta(milliseconds=1)
NEVER = timedelta(hours=1)


class Attempt:
    """Succeeds or fails when told."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.result: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> str:
        self.begun.set()
        return await self.result


async def test_an_attempt_begins_when_the_one_before_it_has_failed() -> None:
    first, second = Attempt(), Attempt()
    discarded: list[str] = []
    racing = asyncio.create_task(
        first_success([first, second], head_start=NEVER, discard=discarded.append)
    )
    await first.begun.wait()
    assert not second.begun.is_set()
    first.result.set_exception(OSError("refused"))
    await second.begun.wait()
    second.result.set_result("second")
    assert await racing == "second"
    assert discarded == []


async def test_a_silent_attempt_delays_the_next_one_by_its_head_start_only() -> None:
    silent, second = Attempt(), Attempt()
    second.result.set_result("second")
    assert await first_success([silent, second], head_start=SOON, discard=print) == "second"
    assert silent.result.cancelled()


async def test_the_earlier_of_two_results_counts_and_the_other_is_discarded() -> None:
    first, second = Attempt(), Attempt()
    discarded: list[str] = []
    racing = asyncio.create_task(
        first_success([first, second], head_start=SOON, discard=discarded.append)
    )
    await second.begun.wait()
    second.result.set_result("second")
    first.result.set_result("first")
    assert await racing == "first"
    assert discarded == ["second"]


async def test_the_errors_of_all_attempts_are_raised_in_their_order() -> None:
    first, second = Attempt(), Attempt()
    second.result.set_exception(ValueError("second"))
    racing = asyncio.create_task(first_success([first, second], head_start=SOON, discard=print))
    await second.begun.wait()
    first.result.set_exception(OSError("first"))
    with pytest.raises(ExceptionGroup) as raised:
        await racing
    assert [str(error) for error in raised.value.exceptions] == ["first", "second"]


async def test_a_cancelled_race_ends_its_attempts() -> None:
    attempt = Attempt()
    racing = asyncio.create_task(first_success([attempt], head_start=SOON, discard=print))
    await attempt.begun.wait()
    racing.cancel()
    await asyncio.wait([racing])
    assert racing.cancelled()
    assert attempt.result.cancelled()


class Lingering(Attempt):
    """Ends some time after it is cancelled: with a success, if it is told so."""

    def __init__(self) -> None:
        super().__init__()
        self.is_ending = asyncio.Event()
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> str:
        try:
            return await super().__call__()
        except asyncio.CancelledError:
            self.is_ending.set()
            return await self.end


async def test_a_race_that_is_cancelled_while_the_losers_end_discards_every_result() -> None:
    slow, winner, late = Lingering(), Attempt(), Lingering()
    discarded: list[str] = []
    attempts = [slow, late, winner]
    racing = asyncio.create_task(first_success(attempts, head_start=SOON, discard=discarded.append))
    await winner.begun.wait()
    winner.result.set_result("winner")
    await asyncio.gather(slow.is_ending.wait(), late.is_ending.wait())
    racing.cancel()
    await asyncio.wait([racing])
    assert racing.cancelled()
    assert discarded == ["winner"]

    ended = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    late.end.set_result("late")
    slow.end.set_exception(OSError("slow"))
    await asyncio.gather(*ended, return_exceptions=True)
    assert discarded == ["winner", "late"]
