"""Callers that ask at the same time share a run, which begins after their calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tasklogs_server.concurrency.singleflight import Singleflight
from tests.support.fixtures.conditions import DEADLINE_SECONDS


class Work:
    """Numbered runs that a test ends."""

    def __init__(self) -> None:
        self.begun = 0
        self.at_once = 0
        self.most_at_once = 0
        self.gates: dict[int, asyncio.Event] = {}
        self._changed = asyncio.Condition()

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        gate = self.gates.setdefault(number, asyncio.Event())
        async with self._changed:
            self._changed.notify_all()
        try:
            await gate.wait()
        finally:
            self.at_once -= 1
        return number

    async def has_begun(self, number: int) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS), self._changed:
            await self._changed.wait_for(lambda: self.begun >= number)

    def finish(self, number: int) -> None:
        self.gates.setdefault(number, asyncio.Event()).set()


@pytest.fixture
async def no_leaks() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    async with asyncio.timeout(DEADLINE_SECONDS):
        while left := asyncio.all_tasks() - before - {asyncio.current_task()}:
            await asyncio.wait(left)


pytestmark = pytest.mark.usefixtures("no_leaks")


async def turns(count: int = 10) -> None:
    """Let every ready coroutine run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_first_caller_runs_at_once_and_later_ones_share_the_next_run() -> None:
    shared, work = Singleflight[int](), Work()
    callers = [asyncio.create_task(shared.run("key", work)) for _ in range(5)]
    await work.has_begun(1)
    work.finish(1)
    work.finish(2)
    assert await asyncio.gather(*callers) == [1, 2, 2, 2, 2]


async def test_callers_during_a_run_share_the_next_one() -> None:
    shared, work = Singleflight[int](), Work()
    first = asyncio.create_task(shared.run("key", work))
    await work.has_begun(1)
    late = [asyncio.create_task(shared.run("key", work)) for _ in range(50)]
    await turns()
    assert work.begun == 1
    work.finish(1)
    await work.has_begun(2)
    work.finish(2)
    assert await first == 1
    assert await asyncio.gather(*late) == [2] * 50
    assert work.begun == 2
    assert work.most_at_once == 1


async def test_a_caller_after_the_start_of_the_next_run_gets_the_one_after_it() -> None:
    shared, work = Singleflight[int](), Work()
    first = asyncio.create_task(shared.run("key", work))
    await work.has_begun(1)
    second = asyncio.create_task(shared.run("key", work))
    await turns()
    work.finish(1)
    await work.has_begun(2)
    third = asyncio.create_task(shared.run("key", work))
    work.finish(2)
    work.finish(3)
    assert list(await asyncio.gather(first, second, third)) == [1, 2, 3]


async def test_keys_do_not_wait_for_each_other() -> None:
    shared, work = Singleflight[int](), Work()
    callers = [asyncio.create_task(shared.run(key, work)) for key in "ab"]
    await work.has_begun(2)
    work.finish(1)
    work.finish(2)
    assert sorted(await asyncio.gather(*callers)) == [1, 2]


async def test_all_callers_of_a_run_get_its_error_and_the_next_run_is_another() -> None:
    shared = Singleflight[int]()

    async def fail() -> int:
        raise LookupError

    async def succeed() -> int:
        return 7

    results = await asyncio.gather(
        shared.run("key", fail), shared.run("key", fail), return_exceptions=True
    )
    assert [type(one) for one in results] == [LookupError, LookupError]
    assert await shared.run("key", succeed) == 7


async def test_a_caller_that_leaves_does_not_cancel_the_run() -> None:
    shared, work = Singleflight[int](), Work()
    callers = [asyncio.create_task(shared.run("key", work)) for _ in range(3)]
    await work.has_begun(1)
    work.finish(1)
    await work.has_begun(2)
    first, leaving, staying = callers
    leaving.cancel()
    await turns()
    work.finish(2)
    assert await first == 1
    assert await staying == 2


async def test_a_run_that_all_callers_have_left_is_cancelled() -> None:
    shared, work = Singleflight[int](), Work()
    caller = asyncio.create_task(shared.run("key", work))
    await work.has_begun(1)
    caller.cancel()
    await asyncio.wait([caller])
    await turns()
    assert work.at_once == 0


async def test_a_caller_still_waits_for_the_current_run_after_the_next_was_cancelled() -> None:
    shared, work = Singleflight[int](), Work()
    first = asyncio.create_task(shared.run("key", work))
    await work.has_begun(1)
    leaving = asyncio.create_task(shared.run("key", work))
    await turns()
    leaving.cancel()
    await asyncio.wait([leaving])
    late = asyncio.create_task(shared.run("key", work))
    await turns()
    assert work.begun == 1
    work.finish(1)
    work.finish(2)
    assert list(await asyncio.gather(first, late)) == [1, 2]
    assert work.most_at_once == 1


async def test_a_caller_that_comes_as_a_run_is_cancelled_gets_its_own_run() -> None:
    shared, work = Singleflight[int](), Work()
    leaving = asyncio.create_task(shared.run("key", work))
    await work.has_begun(1)
    leaving.cancel()
    work.finish(2)
    assert await shared.run("key", work) == 2
    assert work.most_at_once == 1


async def test_a_key_without_callers_is_forgotten() -> None:
    shared = Singleflight[int]()

    async def succeed() -> int:
        return 7

    for number in range(10):
        assert await shared.run(number, succeed) == 7
    assert not shared._under_way


async def left_by(caller: asyncio.Task[int]) -> None:
    caller.cancel()
    await asyncio.wait([caller])


async def test_a_run_that_finishes_goes_on_without_its_caller_and_the_next_one_waits_for_it() -> (
    None
):
    shared, work = Singleflight[int](finishes=True), Work()
    first = asyncio.create_task(shared.run("key", work))
    await work.has_begun(1)
    waiting = asyncio.create_task(shared.run("key", work))
    await left_by(first)
    await turns()
    assert (work.begun, work.at_once) == (1, 1)
    work.finish(1)
    work.finish(2)
    assert await waiting == 2
    assert work.most_at_once == 1


async def test_callers_that_come_in_the_same_turn_share_the_first_run_that_finishes() -> None:
    shared, work = Singleflight[int](finishes=True), Work()
    work.finish(1)
    work.finish(2)
    callers = [asyncio.create_task(shared.run("key", work)) for _ in range(20)]
    assert await asyncio.gather(*callers) == [1] * 20
    assert not await is_under_way(shared)


async def test_a_next_run_that_finishes_goes_on_once_it_has_begun() -> None:
    shared, work = Singleflight[int](finishes=True), Work()
    first = asyncio.create_task(shared.run("key", work))
    await work.has_begun(1)
    hurried = [asyncio.create_task(shared.run("key", work)) for _ in range(2)]
    work.finish(1)
    await work.has_begun(2)
    for one in hurried:
        await left_by(one)
    await turns()
    assert work.at_once == 1
    work.finish(2)
    assert await first == 1
    assert not await is_under_way(shared)


async def test_a_next_run_that_has_not_begun_does_not_begin_without_callers() -> None:
    shared, work = Singleflight[int](finishes=True), Work()
    first = asyncio.create_task(shared.run("key", work))
    await work.has_begun(1)
    hurried = asyncio.create_task(shared.run("key", work))
    await turns()
    await left_by(hurried)
    work.finish(1)
    assert await first == 1
    assert not await is_under_way(shared)
    assert work.begun == 1


async def test_a_run_that_finishes_and_fails_without_a_caller_says_nothing() -> None:
    async def fail() -> int:
        await asyncio.sleep(0)
        raise ValueError

    shared = Singleflight[int](finishes=True)
    leaving = asyncio.create_task(shared.run("key", fail))
    await asyncio.sleep(0)
    await left_by(leaving)
    assert not await is_under_way(shared)


async def is_under_way(shared: Singleflight[int]) -> bool:
    await turns()
    return bool(shared._under_way)
