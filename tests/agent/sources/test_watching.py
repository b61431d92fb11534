"""What wakes a source that reads files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import watchfiles

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.watching import waking
from tests.support.fixtures.conditions import DEADLINE_SECONDS


async def woken(wake: asyncio.Event) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        await wake.wait()
    wake.clear()


@pytest.mark.parametrize("error", [OSError, RuntimeError])
async def test_a_watcher_that_fails_leaves_the_timer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """The system limits how many directories may be watched."""
    tried = 0

    def failing(*_: object, **__: object) -> AsyncIterator[None]:
        nonlocal tried
        tried += 1
        raise error("limit reached")

    monkeypatch.setattr(watchfiles, "awatch", failing)
    wake = asyncio.Event()
    settings = replace(Settings(), look_interval_seconds=0.01)
    async with waking(tmp_path, wake, settings):
        for _ in range(5):
            await woken(wake)
    assert tried > 1


async def test_a_change_wakes_before_the_timer(tmp_path: Path) -> None:
    wake = asyncio.Event()
    path = tmp_path / "log.jsonl"
    path.touch()
    never = replace(Settings(), look_interval_seconds=1000.0)
    async with waking(path, wake, never), asyncio.timeout(DEADLINE_SECONDS):
        while not wake.is_set():  # the watcher needs a moment to begin
            with path.open("a") as file:
                file.write("x\n")
            await asyncio.sleep(0.01)
