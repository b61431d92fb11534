"""The same client without asyncio: the asynchronous one on a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from datetime import timedelta
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from tasklogs.client.backoff import ReconnectWaits
from tasklogs.client.client import DEFAULT_TIMEOUT, TaskLogsClient
from tasklogs.client.credentials import Token
from tasklogs.client.entry import LogEntry
from tasklogs.client.events import FollowEvent
from tasklogs.client.follow import Follow, OnReconnect
from tasklogs.client.log import TaskLog
from tasklogs.client.task import CreatedTask, Task
from tasklogs.connection.tls import Tls
from tasklogs.enums import (
    AgentLifecycle,
    AppHealth,
    BuildTransition,
    JobStatus,
    LogSource,
    TaskStatus,
)

T = TypeVar("T")


class ClientClosed(RuntimeError):
    """The client is not open: not yet, no longer, or it was closed while the call ran."""

    def __init__(self) -> None:
        super().__init__("the client is not open: use it inside `with`")


class _LoopThread:
    """An event loop that runs in a thread, between `start` and `stop`."""

    def __init__(self) -> None:
        # What is handed to the loop is handed before it stops: else nobody would answer it.
        self._handing_over = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="tasklogs client", daemon=True
        )
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._loop is not None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
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
            # Ctrl-C in this thread: the work must not go on in the other.
            future.cancel()
            raise

    def stop(self) -> None:
        """Cancel what still runs, and wait until it has ended."""
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


class _Steps(Generic[T]):
    """An async iterator, step by step."""

    def __init__(self, thread: _LoopThread, steps: AsyncIterator[T]) -> None:
        self._thread = thread
        self._steps = steps

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        # A coroutine cannot let StopAsyncIteration through, so it is told by a value.
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


class SyncFollow(_Steps[FollowEvent]):
    """An iterator over the events of a task's log; `with` or `close` ends it."""

    def __init__(self, thread: _LoopThread, follow: Follow) -> None:
        super().__init__(thread, follow)
        self._follow = follow

    def __next__(self) -> FollowEvent:
        try:
            return super().__next__()
        except ClientClosed:
            raise StopIteration from None

    @property
    def cursor(self) -> str | None:
        """Resumes after all that was yielded; None before the first message."""
        return self._follow.cursor

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it; from another thread, the one that iterates it sees the iteration end."""
        if self._thread.running:
            self._thread.run(self._follow.aclose())


class SyncTaskLog:
    """A task's log as one read saw it: TaskLog's attributes, and its iterations without `async`."""

    def __init__(self, thread: _LoopThread, log: TaskLog) -> None:
        self._thread = thread
        self._log = log
        self.snapshot = log.snapshot
        self.snapshot_at = log.snapshot_at
        self.status = log.status
        self.epoch = log.epoch
        self.revision = log.revision
        self.first_id = log.first_id
        self.cursor = log.cursor

    def pages(self) -> Iterator[tuple[LogEntry, ...]]:
        """Each page's entries, by id; once."""
        return _Steps(self._thread, self._log.pages())

    def entries(self) -> Iterator[LogEntry]:
        """The entries one by one, by id, over all pages; once."""
        return _Steps(self._thread, self._log.entries())

    def all(self) -> list[LogEntry]:
        """All entries, by id, held in memory."""
        return self._thread.run(self._log.all())


class SyncTaskLogsClient:
    """TaskLogsClient for programs without an event loop; its docstrings hold here too.

    >>> from tasklogs import CaughtUp, SyncTaskLogsClient
    >>> with SyncTaskLogsClient("127.0.0.1:50051") as client:
    ...     for entry in client.get("local/demo").entries():
    ...         print(f"{entry.type.name}: {entry.content}")
    ...     for event in client.follow("local/demo", tail=0):
    ...         if isinstance(event, CaughtUp):
    ...             break
    INPUT: What is 6 times 7?
    OUTPUT: It is 42.

    Callables that it is given (`token`, `on_reconnect`) run in its own thread. Several threads may
    share a client; each follow belongs to one.
    """

    def __init__(
        self,
        address: str,
        *,
        token: Token | None = None,
        tls: Tls | None = None,
        timeout: timedelta | None = DEFAULT_TIMEOUT,
        reconnect_waits: ReconnectWaits | None = None,
    ) -> None:
        self._client = TaskLogsClient(
            address, token=token, tls=tls, timeout=timeout, reconnect_waits=reconnect_waits
        )
        self._thread = _LoopThread()

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._thread.run(self._client.__aenter__())
        except BaseException:  # a file of TLS that does not serve
            self._thread.stop()
            raise
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every follow, close the connection, end the thread. Closing twice does nothing."""
        if self._thread.running:
            try:
                self._thread.run(self._client.close())
            finally:
                self._thread.stop()

    def get(
        self,
        task: str,
        *,
        source: LogSource | None = None,
        tail: int | None = None,
        page_size: int | None = None,
        epoch: int | None = None,
        max_staleness: timedelta | None = None,
        timeout: timedelta | None = None,
    ) -> SyncTaskLog:
        """Read a task's log."""
        log = self._thread.run(
            self._client.get(
                task,
                source=source,
                tail=tail,
                page_size=page_size,
                epoch=epoch,
                max_staleness=max_staleness,
                timeout=timeout,
            )
        )
        return SyncTaskLog(self._thread, log)

    def follow(
        self,
        task: str,
        *,
        source: LogSource | None = None,
        tail: int | None = None,
        cursor: str | None = None,
        deltas: bool = True,
        progress: bool = False,
        connect_timeout: timedelta | None = None,
        on_reconnect: OnReconnect | None = None,
    ) -> SyncFollow:
        """Follow a task's log: an iterator of events."""
        follow = self._client.follow(
            task,
            source=source,
            tail=tail,
            cursor=cursor,
            deltas=deltas,
            progress=progress,
            connect_timeout=connect_timeout,
            on_reconnect=on_reconnect,
        )
        return SyncFollow(self._thread, follow)

    def create_task(
        self,
        name: str,
        *,
        owner: str = "",
        display_name: str = "",
        prompt: str = "",
        standalone: bool = False,
    ) -> CreatedTask:
        """Create a task, and the token of its agent."""
        return self._thread.run(
            self._client.create_task(
                name,
                owner=owner,
                display_name=display_name,
                prompt=prompt,
                standalone=standalone,
            )
        )

    def get_task(self, task: str) -> Task:
        """Look at a task."""
        return self._thread.run(self._client.get_task(task))

    def list_tasks(
        self, *, owner: str = "", status: TaskStatus | None = None, page_size: int | None = None
    ) -> Iterator[Task]:
        """Tasks, newest first."""
        return _Steps(
            self._thread, self._client.list_tasks(owner=owner, status=status, page_size=page_size)
        )

    def delete_task(self, task: str) -> None:
        """Delete a task and its log for good."""
        self._thread.run(self._client.delete_task(task))

    def report_build(
        self, task: str, build_number: int, transition: BuildTransition, job_status: JobStatus
    ) -> Task:
        """Report on a workspace build."""
        return self._thread.run(
            self._client.report_build(task, build_number, transition, job_status)
        )

    def report_agent(
        self,
        task: str,
        build_number: int,
        *,
        lifecycle: AgentLifecycle | None = None,
        app_health: AppHealth | None = None,
    ) -> Task:
        """Report on the agent and the task app of the latest build."""
        return self._thread.run(
            self._client.report_agent(
                task, build_number, lifecycle=lifecycle, app_health=app_health
            )
        )

    def rotate_agent_token(self, task: str) -> str:
        """Replace the agent's token."""
        return self._thread.run(self._client.rotate_agent_token(task))
