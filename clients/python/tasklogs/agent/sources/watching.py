"""Wakes a reader when something happens in a directory, by the system's notifications."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from tasklogs.agent.settings import Settings

_STEP_MS = 10
"""Changes that come together within this time are one."""
_DEBOUNCE_MS = 50
_LOST_AFTER_MS = 5000


@contextlib.asynccontextmanager
async def waking(path: Path, wake: asyncio.Event, settings: Settings) -> AsyncIterator[None]:
    """Set `wake` when something changes at `path`, and from time to time in any case.

    In a directory all that is below it counts.
    """
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
        is_directory = await asyncio.to_thread(os.path.isdir, path)
        name = None if is_directory else path.name
        # RuntimeError: the watcher itself failed, for example at the system's limit of watches. The
        # timer still looks.
        with contextlib.suppress(OSError, RuntimeError):
            async for _ in watchfiles.awatch(
                path if is_directory else path.parent,
                watch_filter=partial(_is_of_interest, name),
                debounce=_DEBOUNCE_MS,
                step=_STEP_MS,
                rust_timeout=_LOST_AFTER_MS,
                recursive=is_directory,
            ):
                wake.set()
        await asyncio.sleep(settings.look_interval_seconds)


def _is_of_interest(name: str | None, _: object, changed: str) -> bool:
    # A database writes beside its own file.
    return name is None or Path(changed).name.startswith(name)
