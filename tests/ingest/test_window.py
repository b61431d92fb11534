"""The window of a session: bytes are counted once and released once, and the sender waits."""

from __future__ import annotations

import asyncio

import pytest

from tasklogs_server.ingest.window import Window
from tasklogs_server.limits.ingest_budget import IngestBudget

LIMIT = 1000


@pytest.fixture
async def budget() -> IngestBudget:
    budget = IngestBudget(1 << 20)
    await budget.acquire(600)
    await budget.acquire(500)
    return budget


async def is_waiting(window: Window) -> bool:
    waiting = asyncio.create_task(window.wait_for_capacity())
    done, _ = await asyncio.wait([waiting], timeout=0.01)
    waiting.cancel()
    return not done


async def test_a_sender_past_the_limit_waits_until_enough_is_committed(
    budget: IngestBudget,
) -> None:
    window = Window(LIMIT, budget)
    assert window.received(1, 600, seen_at=1.0)
    window.handed_over()
    assert not window.received(2, 500, seen_at=2.0), "bytes in flight count, too"
    assert await is_waiting(window)
    window.committed()
    assert not await is_waiting(window)
    assert budget.held_bytes == 500


async def test_a_window_is_idle_once_the_last_append_is_committed(budget: IngestBudget) -> None:
    window = Window(LIMIT, budget)
    assert window.is_idle
    window.received(1, 600, seen_at=1.0)
    window.handed_over()
    window.received(2, 500, seen_at=2.0)
    window.committed()
    assert (window.acked_sequence, window.is_idle) == (1, False)
    window.handed_over()
    window.committed()
    assert (window.acked_sequence, window.is_idle) == (2, True)
    await window.wait_until_idle()


async def test_a_commit_knows_when_its_oldest_change_was_seen(budget: IngestBudget) -> None:
    window = Window(LIMIT, budget)
    window.received(1, 300, seen_at=5.0)
    window.received(2, 300, seen_at=6.0)
    window.handed_over()
    window.received(3, 500, seen_at=7.0)
    assert window.committed() == 5.0
    window.handed_over()
    assert window.committed() == 7.0


async def test_lost_bytes_are_released_and_not_acknowledged(budget: IngestBudget) -> None:
    window = Window(LIMIT, budget)
    window.received(1, 600, seen_at=1.0)
    window.handed_over()
    window.lost()
    window.lost()
    assert (window.acked_sequence, budget.held_bytes) == (0, 500)


async def test_a_closed_window_holds_only_what_is_in_flight(budget: IngestBudget) -> None:
    window = Window(LIMIT, budget)
    window.received(1, 600, seen_at=1.0)
    window.handed_over()
    window.received(2, 500, seen_at=2.0)
    window.close()
    assert not await is_waiting(window)
    assert window.is_idle
    assert budget.held_bytes == 600
    window.lost()
    assert budget.held_bytes == 0
