"""What an async iterator yields, for threads without an event loop."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Generic, Self, TypeAlias, TypeVar

from tasklogs.client.loop_thread import Job, LoopThread, raise_error_of

T = TypeVar("T")
Items: TypeAlias = Sequence[T] | None
"""The next items. None: there are no more."""


class Batch(Job[Items[T]]):
    """The items that one hop to the loop brings."""

    items: Sequence[T] | None = None
    """None: not read yet."""
    taken = 0
    """How many of the items were handed over."""


class Steps(Generic[T]):
    """An iterator whose items come from the loop, a batch at a time.

    If a signal handler raises while a thread waits for an item, the iteration goes on with that
    item: what was not handed over is kept, and a batch that is being read is read to its end.
    """

    def __init__(
        self, thread: LoopThread, next_items: Callable[[], Coroutine[Any, Any, Items[T]]]
    ) -> None:
        self._thread = thread
        # It must not refer to this object: then nothing that runs on the loop keeps it alive.
        self._next_items = next_items
        self._batch = Batch(next_items)
        self._reader: int | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        batch = self._wait()
        if batch is None or batch.items is None:
            raise StopIteration
        # CPython runs signal handlers after calls, and where a loop or a function begins. There is
        # none of these after the assignment, so the item is handed over if it counts as taken.
        item = batch.items[batch.taken]
        batch.taken += 1
        return item

    def __del__(self) -> None:
        if not self._batch.done:
            self._thread.cancel(self._batch)

    def _wait(self, ends_at: float | None = None) -> Batch[T] | None:
        """Wait for a batch with an item that is not taken, at most until `ends_at` (monotonic).

        Returns None if there are no more. Raises TimeoutError, and what the iterator raised. Every
        line of it can be run twice.
        """
        while True:
            batch = self._batch
            if batch.items is None:
                self._wait_for(batch, ends_at)
                if batch.error is not None:
                    self._batch = Batch(self._next_items)
                    raise_error_of(batch)
                batch.items = batch.result()
                if batch.items is None:
                    return None
            if batch.taken < len(batch.items):
                return batch
            self._batch = Batch(self._next_items)

    def _wait_for(self, batch: Batch[T], ends_at: float | None) -> None:
        self._thread.check_caller()
        reader = threading.get_ident()
        if self._reader is not None and self._reader != reader:
            raise RuntimeError("another thread reads this: several threads cannot share it")
        self._reader = reader
        try:
            self._thread.submit(batch)
            batch.wait(None if ends_at is None else max(0, ends_at - time.monotonic()))
        finally:
            self._reader = None


async def next_items(batches: AsyncIterator[Sequence[T]]) -> Items[T]:
    """Return the next batch, whose items are iterated one by one."""
    return await anext(batches, None)


async def next_alone(items: AsyncIterator[T]) -> Items[T]:
    """Return the next item as a batch of one."""
    try:
        return (await anext(items),)
    except StopAsyncIteration:
        return None
