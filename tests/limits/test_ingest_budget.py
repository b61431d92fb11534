"""The limit on the bytes that all sessions hold: first come, first served."""

from __future__ import annotations

import asyncio

import pytest

from tasklogs_server.limits.ingest_budget import IngestBudget


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_bytes_that_fit_are_acquired_at_once() -> None:
    budget = IngestBudget(100)
    await budget.acquire(60)
    await budget.acquire(40)
    assert budget.held_bytes == 100


async def test_any_size_fits_if_nothing_is_held() -> None:
    budget = IngestBudget(100)
    await asyncio.wait_for(budget.acquire(500), 1)
    budget.release(500)
    assert budget.held_bytes == 0


async def test_bytes_that_do_not_fit_wait_until_enough_are_released() -> None:
    budget = IngestBudget(100)
    await budget.acquire(80)
    waiting = asyncio.create_task(budget.acquire(50))
    await turns()
    budget.release(20)
    await turns()
    assert not waiting.done()
    budget.release(20)
    await asyncio.wait_for(waiting, 1)
    assert budget.held_bytes == 90


async def test_a_small_size_does_not_overtake_a_large_one() -> None:
    budget = IngestBudget(100)
    await budget.acquire(80)
    order: list[str] = []

    async def take(name: str, size_bytes: int) -> None:
        await budget.acquire(size_bytes)
        order.append(name)

    takers = [asyncio.create_task(take("large", 90)), asyncio.create_task(take("small", 1))]
    await turns()
    assert order == []
    budget.release(80)
    await asyncio.wait_for(asyncio.gather(*takers), 1)
    assert order == ["large", "small"]


async def test_a_waiter_that_leaves_does_not_delay_those_behind_it() -> None:
    budget = IngestBudget(100)
    await budget.acquire(80)
    large = asyncio.create_task(budget.acquire(90))
    small = asyncio.create_task(budget.acquire(10))
    await turns()
    large.cancel()
    await asyncio.wait_for(small, 1)
    assert budget.held_bytes == 90
    await asyncio.wait_for(budget.acquire(10), 1)


async def test_a_waiter_that_is_cancelled_at_its_turn_releases_its_bytes() -> None:
    budget = IngestBudget(100)
    await budget.acquire(100)
    waiting = asyncio.create_task(budget.acquire(100))
    await turns()
    budget.release(100)  # its turn has come, but it has not run yet
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert budget.held_bytes == 0
