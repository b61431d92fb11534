"""Feeds that are all woken are woken a few at a time."""

from __future__ import annotations

import uuid
from uuid import UUID

import pytest

from tasklogs_server.reads import paced_wakes
from tasklogs_server.reads.paced_wakes import AT_ONCE, PacedWakes
from tests.support.fixtures.conditions import until

TASKS = [uuid.uuid4() for _ in range(3 * AT_ONCE)]


async def test_the_first_are_woken_at_once_and_all_soon() -> None:
    woken: list[UUID] = []
    PacedWakes(woken.append).add(TASKS)
    assert woken == TASKS[:AT_ONCE]
    await until(lambda: woken == TASKS)


async def test_one_that_waits_is_woken_once_and_keeps_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paced_wakes, "PAUSE_SECONDS", 0.001)
    woken: list[UUID] = []
    wakes = PacedWakes(woken.append)
    wakes.add(TASKS)
    wakes.add(TASKS)
    assert woken == TASKS[:AT_ONCE]
    # Those that were woken wait again, behind the others.
    await until(lambda: woken == [*TASKS, *TASKS[:AT_ONCE]])
