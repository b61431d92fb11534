"""The bound on the bytes that all sessions hold: first come, first served."""

from __future__ import annotations

import asyncio

import pytest

from tasklogs_server.limits.ingest_budget import IngestBudget
from tests.support.fixtures.conditions import DEADLINE_SECONDS


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_fits_is_taken_at_once() -> None:
    budget = IngestBudget(100)
    await budget.acquire(60)
    await budget.acquire(40)
    assert budget.held_bytes == 100


async def test_one_taker_alone_always_fits() -> None:
    budget = IngestBudget(100)
    await asyncio.wait_for(budget.acquire(500), DEADLINE_SECONDS)
    budget.release(500)
    assert budget.held_bytes == 0


async def test_who_does_not_fit_waits_until_enough_is_given_back() -> None:
    budget = IngestBudget(100)
    await budget.acquire(80)
    waiting = asyncio.create_task(budget.acquire(50))
    await turns()
    budget.release(20)
    await turns()
    assert not waiting.done()
    budget.release(20)
    await asyncio.wait_for(waiting, DEADLINE_SECONDS)
    assert budget.held_bytes == 90


async def test_a_small_taker_does_not_pass_a_large_one() -> None:
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
    await asyncio.wait_for(asyncio.gather(*takers), DEADLINE_SECONDS)
    assert order == ["large", "small"]


async def test_a_taker_that_leaves_holds_up_nobody_behind_it() -> None:
    budget = IngestBudget(100)
    await budget.acquire(80)
    large = asyncio.create_task(budget.acquire(90))
    small = asyncio.create_task(budget.acquire(10))
    await turns()
    large.cancel()
    await asyncio.wait_for(small, DEADLINE_SECONDS)
    assert budget.held_bytes == 90
    await asyncio.wait_for(budget.acquire(10), DEADLINE_SECONDS)


async def test_a_taker_that_is_cancelled_in_its_turn_gives_back() -> None:
    budget = IngestBudget(100)
    await budget.acquire(100)
    waiting = asyncio.create_task(budget.acquire(100))
    await turns()
    budget.release(100)  # its turn, but it has not run yet
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert budget.held_bytes == 0
