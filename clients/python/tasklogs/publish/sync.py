"""The publisher without asyncio. It runs the asynchronous publisher on a loop in another thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from tasklogs.client.loop_thread import LoopThread
from tasklogs.client.new_entry import Entry
from tasklogs.connection.tls import Tls
from tasklogs.errors import ClientClosed, TaskLogsRpcError
from tasklogs.publish.errors import PublisherClosed
from tasklogs.publish.publisher import (
    DEFAULT_CLOSE_TIMEOUT,
    DEFAULT_CONNECT_TIMEOUT,
    DEFAULT_MOST_BYTES,
    AgentToken,
    OpenEntry,
    Publisher,
    StoredLog,
)

T = TypeVar("T")


class SyncPublisher:
    """Publisher for programs without an event loop: the same methods, without `await`.

    >>> from tasklogs import Entry, SyncPublisher
    >>> with SyncPublisher("127.0.0.1:50051", token=agent_token) as log:
    ...     log.append(Entry.input("Why is the sky blue?"))
    ...     answer = log.begin(Entry.output())
    ...     for text in ("Because ", "of ", "Rayleigh."):
    ...         answer.extend(text)
    ...     log.flush()

    Several threads may write. `on_sync` runs in the publisher's own thread: there, and after a
    fork, the publisher's methods raise RuntimeError. Enter a publisher once.

    An exception of a signal handler (Ctrl-C) cancels the method that it interrupts. What that
    method should write was written as a whole, or will never be.
    """

    def __init__(
        self,
        address: str,
        *,
        token: AgentToken,
        tls: Tls | None = None,
        resume: bool = False,
        build_number: int | None = None,
        kind: str = "publisher",
        on_sync: Callable[[], None] | None = None,
        max_held_bytes: int = DEFAULT_MOST_BYTES,
        connect_timeout: timedelta | None = DEFAULT_CONNECT_TIMEOUT,
        close_timeout: timedelta = DEFAULT_CLOSE_TIMEOUT,
    ) -> None:
        self._publisher = Publisher(
            address,
            token=token,
            tls=tls,
            resume=resume,
            build_number=build_number,
            kind=kind,
            on_sync=on_sync,
            max_held_bytes=max_held_bytes,
            connect_timeout=connect_timeout,
            close_timeout=close_timeout,
        )
        self._thread: LoopThread | None = None

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise PublisherClosed
        thread = self._thread = LoopThread()
        thread.start()
        try:
            thread.run(self._publisher.__aenter__)
        except BaseException:  # it may be entered again
            thread.stop()
            self._thread = None
            raise
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        thread = self._thread
        if thread is None or thread.inherited:
            return
        try:
            with suppress(ClientClosed):  # another thread closes it, or it was closed before
                thread.run(partial(self._publisher.__aexit__, exception_type, exception, trace))
        finally:
            thread.stop()

    def close(self) -> None:
        """Store everything, end the session and the thread. Closing twice does nothing."""
        self.__exit__(None, None, None)

    def append(self, entry: Entry, *, timeout: timedelta | None = None) -> None:
        """Write an entry. Waits while too much is held; TimeoutError after `timeout`."""
        self._run(lambda: self._publisher.append(entry), timeout)

    def begin(self, entry: Entry, *, timeout: timedelta | None = None) -> SyncOpenEntry:
        """Write an entry that may change until another one is written."""
        return SyncOpenEntry(self, self._run(lambda: self._publisher.begin(entry), timeout))

    def begin_epoch(self) -> None:
        """Let the next entry begin another conversation."""
        self._run(self._publisher.begin_epoch)

    def flush(self, *, timeout: timedelta | None = None) -> None:
        """Wait until everything is stored durably; TimeoutError after `timeout`."""
        self._run(self._publisher.flush, timeout)

    @property
    def stored(self) -> StoredLog | None:
        """The stored log when the last session began; None before the first."""
        return self._publisher.stored

    @property
    def last_error(self) -> TaskLogsRpcError | None:
        """What ended the last session; None while one is open, or if nothing is known."""
        return self._publisher.last_error

    def _run(
        self, work: Callable[[], Coroutine[Any, Any, T]], timeout: timedelta | None = None
    ) -> T:
        async def limited() -> T:
            async with asyncio.timeout(None if timeout is None else timeout.total_seconds()):
                return await work()

        if self._thread is None:
            raise PublisherClosed
        try:
            return self._thread.run(limited)
        except ClientClosed:
            raise PublisherClosed from None


class SyncOpenEntry:
    """OpenEntry for programs without an event loop."""

    def __init__(self, publisher: SyncPublisher, entry: OpenEntry) -> None:
        self._publisher = publisher
        self._entry = entry

    def extend(self, text: str) -> None:
        """Add text to its end. Raises EntrySealed if another entry was written meanwhile."""
        self._publisher._run(lambda: self._entry.extend(text))

    def replace(self, content: str) -> None:
        """Set another content. Raises EntrySealed if another entry was written meanwhile."""
        self._publisher._run(lambda: self._entry.replace(content))
