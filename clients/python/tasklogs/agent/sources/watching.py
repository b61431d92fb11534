"""Wakes a reader when something happens in a directory, by the system's notifications."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from tasklogs.agent.settings import Settings

_STEP_MS = 10
"""Changes that come together within this time are one."""
_DEBOUNCE_MS = 50
_LOST_AFTER_MS = 5000


@contextlib.asynccontextmanager
async def waking(path: Path, wake: asyncio.Event, settings: Settings) -> AsyncIterator[None]:
    """Set `wake` when something changes beside `path`, and from time to time in any case."""
    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(_look(wake, settings))
        watching = tasks.create_task(_watch(path, wake, settings, looking))
        try:
            yield
        finally:
            looking.cancel()
            watching.cancel()


async def _look(wake: asyncio.Event, settings: Settings) -> None:
    while True:
        await asyncio.sleep(settings.look_interval_seconds)
        wake.set()


async def _watch(
    path: Path, wake: asyncio.Event, settings: Settings, looking: asyncio.Task[None]
) -> None:
    """Watch the directory, as soon as it exists."""
    try:
        import watchfiles
    except ImportError:
        return
    while True:
        with contextlib.suppress(OSError):
            async for _ in watchfiles.awatch(
                path.parent,
                watch_filter=lambda _, changed: Path(changed).name == path.name,
                debounce=_DEBOUNCE_MS,
                step=_STEP_MS,
                rust_timeout=_LOST_AFTER_MS,
                recursive=False,
            ):
                wake.set()
        await asyncio.sleep(settings.look_interval_seconds)
