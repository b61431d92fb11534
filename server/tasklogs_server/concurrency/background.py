"""Work that runs while a block of code runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `work` as long as the block lasts. Its failure cancels the block and is raised.

    Errors are raised as they are, without the task group's ExceptionGroup: callers catch them by
    type.
    """
    failure: Exception | None = None
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(work)
            try:
                yield
            except Exception as error:
                failure = error
            task.cancel()
    except ExceptionGroup as failures:
        failure = failure or failures.exceptions[0]
    if failure is not None:
        raise failure
