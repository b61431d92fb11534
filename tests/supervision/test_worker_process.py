from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
import pytest

from tasklogs_server.settings import ServerSettings
from tasklogs_server.supervision import worker_process
from tasklogs_server.supervision.channel import Channel
from tasklogs_server.supervision.worker_process import WorkerProcess
from tests.supervision.conftest import Scripted

MODULE = "tests.supervision.scripted_worker"
SETTINGS = ServerSettings.model_validate({"workers": 2, "worker_timeout": 1, "drain_timeout": 0})


@asynccontextmanager
async def watched(
    settings: ServerSettings = SETTINGS,
) -> AsyncIterator[tuple[WorkerProcess, asyncio.Task[str]]]:
    worker = await WorkerProcess.start(7, settings)
    running = asyncio.create_task(worker.run())
    try:
        async with asyncio.timeout(60):
            yield worker, running
    finally:
        running.cancel()
        await asyncio.wait({running})
        assert not psutil.pid_exists(worker.pid)


async def test_a_worker_that_is_asked_to_end_ends_by_itself(scripted: Scripted) -> None:
    scripted("serve,beat")
    async with watched() as (worker, running):
        await worker.serves.wait()
        worker.ask_to_end()
        assert await running == "exit status 0"


async def test_a_worker_that_falls_silent_is_killed(scripted: Scripted) -> None:
    scripted("serve,hang")
    async with watched() as (worker, running):
        await worker.serves.wait()
        assert await running == "its event loop stood still, and it was killed"


async def test_a_worker_that_beats_is_left_alone(scripted: Scripted) -> None:
    scripted("serve,beat")
    async with watched() as (_, running):
        done, _ = await asyncio.wait({running}, timeout=3 * SETTINGS.worker_timeout.total_seconds())
        assert not done


async def test_while_a_worker_starts_its_event_loop_may_stand_still_for_longer(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted("load,serve,beat")
    async with watched() as (worker, running):
        await worker.serves.wait()
        worker.ask_to_end()
        assert await running == "exit status 0"
    monkeypatch.setattr(worker_process, "_START_SECONDS", 0.5)
    async with watched() as (worker, running):
        assert await running == "its event loop stood still, and it was killed"
        assert not worker.serves.is_set()


async def test_a_worker_is_ended_if_its_start_is_cancelled(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted("serve,hang")
    reached = asyncio.Event()

    async def stuck(_: socket.socket) -> None:
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Channel, "open", stuck)
    starting = asyncio.create_task(WorkerProcess.start(7, SETTINGS))
    await reached.wait()
    [child] = [one for one in psutil.Process().children() if MODULE in one.cmdline()]
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not child.is_running()


async def test_a_worker_is_told_which_event_loop_the_settings_name(scripted: Scripted) -> None:
    scripted("serve,hang")
    async with watched(SETTINGS.model_copy(update={"loop": "asyncio"})) as (worker, _):
        await worker.serves.wait()
        assert psutil.Process(worker.pid).cmdline()[-1] == "asyncio"


async def test_a_worker_without_metrics_says_so(scripted: Scripted) -> None:
    scripted("serve,refuse,hang")
    async with watched() as (worker, _):
        with pytest.raises(ConnectionError, match="has no metrics"):
            await worker.ask_for_metrics()


async def test_a_worker_that_does_not_end_in_time_is_killed(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "END_SECONDS", 0.0)
    scripted("serve,hang")
    async with watched() as (worker, running):
        await worker.serves.wait()
        worker.ask_to_end()
        assert await running == "signal SIGKILL"


async def test_a_worker_says_why_it_cannot_start(scripted: Scripted) -> None:
    scripted("fail,exit")
    async with watched() as (worker, running):
        assert await running == "exit status 3"
        assert worker.refusal == "the keys are broken"


async def test_a_question_is_answered_or_fails_when_the_worker_ends(scripted: Scripted) -> None:
    scripted("serve,answer,exit")
    async with watched() as (worker, running):
        first = asyncio.create_task(worker.ask_for_metrics())
        assert await first == [7]
        second = asyncio.create_task(worker.ask_for_metrics())
        await running
        with pytest.raises(ConnectionError):
            await second
