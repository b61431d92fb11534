"""Several attempts at the same thing, of which the first success counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TypeVar

T = TypeVar("T")


async def first_success(
    attempts: Sequence[Callable[[], Awaitable[T]]],
    *,
    head_start: timedelta,
    discard: Callable[[T], None],
) -> T:
    """Return the result of the first attempt that succeeds, and cancel the others.

    An attempt begins when one before it has failed, or has taken `head_start`. `discard` is called
    with a result that is not returned. Raises an ExceptionGroup with the error of each attempt, in
    their order, if all fail.
    """
    begun: list[asyncio.Task[T]] = []
    kept: asyncio.Task[T] | None = None
    try:
        while True:
            if len(begun) < len(attempts):
                begun.append(asyncio.ensure_future(attempts[len(begun)]()))
            is_last = len(begun) == len(attempts)
            pending = {task for task in begun if not task.done()}
            if pending:
                await asyncio.wait(
                    pending,
                    timeout=None if is_last else head_start.total_seconds(),
                    return_when=asyncio.FIRST_COMPLETED,
                )
            kept = next((task for task in begun if _succeeded(task)), None)
            if kept is not None:
                return kept.result()
            if is_last and all(task.done() for task in begun):
                errors = [error for task in begun if (error := task.exception()) is not None]
                raise BaseExceptionGroup("every attempt failed", errors)
    finally:
        for task in begun:
            task.cancel()
        try:
            if begun:
                await asyncio.wait(begun)
        except asyncio.CancelledError:
            kept = None  # its result is not returned
            raise
        finally:
            for task in begun:
                if task is kept:
                    continue
                if task.done():
                    _discard(discard, task)
                else:  # the wait was cancelled
                    task.add_done_callback(partial(_discard, discard))


def _discard(discard: Callable[[T], None], task: asyncio.Task[T]) -> None:
    if _succeeded(task):
        discard(task.result())


def _succeeded(task: asyncio.Task[T]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None
