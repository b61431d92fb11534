"""An event loop in a thread of its own, for programs that have none."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Generic, Self, TypeVar

from tasklogs.errors import ClientClosed

T = TypeVar("T")


class LoopThread:
    """An event loop that runs in a thread, between `start` and `stop`."""

    def __init__(self) -> None:
        # Work must reach the loop before the loop stops, or its caller would wait indefinitely.
        self._handing_over = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread and its loop."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="tasklogs client", daemon=True
        )
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether it is between `start` and `stop`."""
        return self._loop is not None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the loop and return its result. Raises ClientClosed where there is none."""
        with self._handing_over:
            if self._loop is None:
                work.close()
                raise ClientClosed
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise ClientClosed from None
        except BaseException:
            # Ctrl-C in this thread: the work must not go on in the other thread.
            future.cancel()
            raise

    def stop(self) -> None:
        """Cancel running work and wait for its end. Stopping twice does nothing."""
        with self._handing_over:
            loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(_end_others(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _end_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class Steps(Generic[T]):
    """An async iterator as a plain one: each step runs on the loop."""

    def __init__(self, thread: LoopThread, steps: AsyncIterator[T]) -> None:
        self._thread = thread
        self._steps = steps

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        # A coroutine cannot raise StopAsyncIteration, so a value says that there is no next step.
        found, value = self._thread.run(_step(self._steps))
        if not found:
            raise StopIteration
        assert value is not None
        return value


async def _step(steps: AsyncIterator[T]) -> tuple[bool, T | None]:
    try:
        return True, await anext(steps)
    except StopAsyncIteration:
        return False, None
