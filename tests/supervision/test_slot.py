from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from tasklogs_server.process.lifecycle import StartupError
from tasklogs_server.settings import ServerSettings
from tasklogs_server.supervision import slot as slots
from tasklogs_server.supervision.slot import Slot
from tests.supervision.conftest import Scripted
from tests.support.fixtures.conditions import until

SETTINGS = ServerSettings.model_validate({"workers": 2, "worker_timeout": 60, "drain_timeout": 0})


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(slots, "_MAX_PAUSE_SECONDS", 0.02)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("fail,exit", "the keys are broken"),
        ("exit", "worker 1 did not start: exit status 3"),
    ],
)
async def test_if_the_first_worker_does_not_start_no_other_is_tried(
    scripted: Scripted, script: str, why: str
) -> None:
    scripted(script)
    slot = Slot(1, SETTINGS)
    with capture_logs() as logged, pytest.raises(StartupError, match=f"^{why}$"):
        await slot.run(asyncio.Event())
    assert slot.restarts == 0
    assert not logged


async def test_a_worker_that_ends_is_replaced_also_if_its_successors_cannot_start(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot, served = Slot(1, SETTINGS), asyncio.Event()
    scripted("serve,exit")
    with capture_logs() as logged:
        running = asyncio.create_task(slot.run(served))
        await served.wait()
        scripted("fail,exit")
        await until(lambda: slot.restarts >= 3)
        assert slot.process is None
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", "/no/such/python")
            now = slot.restarts
            await until(lambda: slot.restarts >= now + 2)
        scripted("serve,beat")
        await until(lambda: slot.process is not None)
        slot.end()
        await running
    hows = [one["how"] for one in logged if one["event"] == "worker.ended"]
    assert hows[0] == "exit status 3"
    assert "the keys are broken" in hows
    assert "it cannot be started: No such file or directory" in hows
    assert [one["event"] for one in logged][-1] == "worker.started"


async def test_the_pauses_between_starts_grow_to_a_limit_and_begin_anew_after_a_good_worker(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    def of_pause(_: float, at_most: float) -> timedelta:
        pauses.append(at_most)
        return timedelta(0)

    monkeypatch.setattr(slots, "spread", of_pause)
    monkeypatch.setattr(slots, "_FIRST_PAUSE_SECONDS", 1.0)
    monkeypatch.setattr(slots, "_MAX_PAUSE_SECONDS", 5.0)
    slot = Slot(1, SETTINGS)
    scripted("serve,exit")
    running = asyncio.create_task(slot.run(asyncio.Event()))
    await until(lambda: len(pauses) >= 6)
    assert pauses[:6] == [0.0, 1.0, 2.0, 4.0, 5.0, 5.0]
    monkeypatch.setattr(slots, "_GOOD_SECONDS", 0.0)
    await until(lambda: pauses[-1] == 0.0)
    scripted("fail,exit")  # however long it took to fail
    await until(lambda: pauses[-2:] == [5.0, 5.0])
    slot.end()
    await running


async def test_the_end_does_not_wait_for_a_pause(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "_FIRST_PAUSE_SECONDS", 600.0)
    monkeypatch.setattr(slots, "_MAX_PAUSE_SECONDS", 600.0)
    scripted("serve,exit")
    slot = Slot(1, SETTINGS)
    running = asyncio.create_task(slot.run(asyncio.Event()))
    await until(lambda: slot.restarts == 2)
    slot.end()
    async with asyncio.timeout(60):
        await running


async def test_a_cancelled_slot_leaves_no_worker(scripted: Scripted) -> None:
    scripted("serve,hang")
    slot, served = Slot(1, SETTINGS), asyncio.Event()
    running = asyncio.create_task(slot.run(served))
    await served.wait()
    assert slot.process is not None
    process = slot.process
    running.cancel()
    await asyncio.wait({running})
    assert process.has_ended
