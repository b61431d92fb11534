"""The client without asyncio. It runs the asynchronous client on a loop in another thread."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from tasklogs.client.backoff import ReconnectWaits
from tasklogs.client.calls import seconds
from tasklogs.client.client import DEFAULT_RETRY, DEFAULT_TIMEOUT, TaskLogsClient
from tasklogs.client.credentials import Metadata, Token
from tasklogs.client.entry import LogEntry
from tasklogs.client.events import FollowEvent, Progress
from tasklogs.client.follow import Follow
from tasklogs.client.log import TaskLog
from tasklogs.client.loop_thread import LoopThread
from tasklogs.client.page import Page
from tasklogs.client.retry import RetryPolicy
from tasklogs.client.steps import Steps, next_alone, next_items
from tasklogs.client.task import Task
from tasklogs.client.task_list import TaskList
from tasklogs.connection.channel import Option
from tasklogs.connection.tls import Tls
from tasklogs.errors import ClientClosed


class SyncFollow(Steps[FollowEvent]):
    """An iterator over the events of a task's log; `with` or `close` ends it.

    If `next` raises something else than an error of the follow (a time-out, Ctrl-C, the exception
    of a signal handler), no event is lost: the iteration goes on with the next event, and `cursor`
    does not change.
    """

    def __init__(self, thread: LoopThread, follow: Follow) -> None:
        super().__init__(thread, partial(next_alone, follow))
        self._follow = follow
        self._cursor = follow.cursor
        self._closed = False
        # The cursor of Progress counts, also if the reader does not want to see it.
        streams = follow._streams
        self._shows_progress, streams._progress = streams._progress, True

    def next(self, timeout: timedelta | None = None) -> FollowEvent:
        """Return the next event, as `next(follow)` does, or raise TimeoutError after `timeout`.

        None: no limit. After a time-out go on with the same follow. Raises StopIteration when the
        follow was closed.
        """
        limit = seconds(timeout)
        ends_at = None if limit is None else time.monotonic() + limit
        try:
            while (batch := self._wait(ends_at)) and batch.items and not self._closed:
                event = batch.items[batch.taken]
                shown = self._shows_progress or not isinstance(event, Progress)
                # As in Steps: no call and no loop between this and `return`.
                batch.taken += 1
                self._cursor = event.cursor
                if shown:
                    return event
        except ClientClosed:
            pass
        raise StopIteration

    __next__ = next  # noqa: A003

    @property
    def cursor(self) -> str | None:
        """Continues after the last event that was yielded.

        Before the first message: the cursor that the follow began with; None without one.
        """
        return self._cursor

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
        """End the follow. A thread that iterates it sees the end of the iteration."""
        if not self._thread.inherited:
            with suppress(ClientClosed):
                self._thread.run(self._follow.aclose)
        self._closed = True


class SyncTaskLog:
    """The result of one read: TaskLog's attributes, and its iterations without `async`."""

    def __init__(self, thread: LoopThread, log: TaskLog) -> None:
        self._thread = thread
        self._log = log
        self.task_id = log.task_id
        self.snapshot = log.snapshot
        self.snapshot_at = log.snapshot_at
        self.status = log.status
        self.epoch = log.epoch
        self.revision = log.revision
        self.first_id = log.first_id
        self.cursor = log.cursor
        self.next_page_token = log.next_page_token

    def pages(self) -> Iterator[Page[LogEntry]]:
        """Yield the entries of each page, by id. It can be iterated once."""
        return Steps(self._thread, partial(next_alone, self._log.pages()))

    def entries(self) -> Iterator[LogEntry]:
        """Yield the entries of all pages, by id. It can be iterated once."""
        return Steps(self._thread, partial(next_items, self._log.pages()))

    def all(self) -> list[LogEntry]:
        """Return all entries, by id."""
        return self._thread.run(self._log.all)


class SyncTaskList(Steps[Task]):
    """An iterator over tasks. Iterate over it, or over its `pages`, once."""

    def __init__(self, thread: LoopThread, tasks: TaskList) -> None:
        super().__init__(thread, partial(next_items, tasks.pages()))
        self._tasks = tasks

    def pages(self) -> Iterator[Page[Task]]:
        """Return the iterator over the pages."""
        return Steps(self._thread, partial(next_alone, self._tasks.pages()))


P = ParamSpec("P")
Given = TypeVar("Given")
Returned = TypeVar("Returned")


def _derived(
    method: Callable[Concatenate[TaskLogsClient, P], Given],
    finish: Callable[[LoopThread, Callable[[], Given]], Returned],
    returns: str | None = None,
) -> Callable[Concatenate[SyncTaskLogsClient, P], Returned]:
    """Derive a method of SyncTaskLogsClient, with the parameters of `method`.

    `finish` calls `method`, and turns its result (a coroutine, an iterator) into what a program
    without an event loop can use; `returns` names its type if it differs. The docstring is that of
    `method` without its examples.
    """

    def call(self: SyncTaskLogsClient, /, *args: P.args, **kwargs: P.kwargs) -> Returned:
        return finish(self._opened(), partial(method, self._client, *args, **kwargs))

    signature = inspect.signature(method)
    if returns is not None:
        signature = signature.replace(return_annotation=returns)
    call.__name__ = method.__name__
    call.__qualname__ = f"SyncTaskLogsClient.{method.__name__}"
    call.__doc__ = _without_examples(inspect.getdoc(method) or "")
    call.__signature__ = signature  # type: ignore[attr-defined]
    return call


def _read(thread: LoopThread, work: Callable[[], Coroutine[Any, Any, TaskLog]]) -> SyncTaskLog:
    return SyncTaskLog(thread, thread.run(work))


def _follow(thread: LoopThread, work: Callable[[], Follow]) -> SyncFollow:
    async def follow() -> Follow:
        return work()

    # The client keeps its follows in a set that only its own thread may change.
    return SyncFollow(thread, thread.run(follow))


def _list(thread: LoopThread, work: Callable[[], TaskList]) -> SyncTaskList:
    return SyncTaskList(thread, work())


def _without_examples(docstring: str) -> str:
    paragraphs = docstring.split("\n\n")
    return "\n\n".join(one for one in paragraphs if not one.startswith(">>> "))


class SyncTaskLogsClient:
    """TaskLogsClient for programs without an event loop: the same methods, without `await`.

    >>> from tasklogs import CaughtUp, SyncTaskLogsClient
    >>> with SyncTaskLogsClient("127.0.0.1:50051") as client:
    ...     for entry in client.get("local/demo").entries():
    ...         print(f"{entry.type.name}: {entry.content}")
    ...     for event in client.follow("local/demo", tail=0):
    ...         if isinstance(event, CaughtUp):
    ...             break
    INPUT: What is 6 times 7?
    OUTPUT: It is 42.

    The functions that are passed to it (`token`, `on_reconnect`) run in its own thread, and cannot
    use it: RuntimeError. Several threads may share a client, but not a follow. After a fork each
    method raises RuntimeError, because gRPC does not work then.
    """

    def __init__(
        self,
        address: str,
        *,
        token: Token | None = None,
        tls: Tls | None = None,
        timeout: timedelta | None = DEFAULT_TIMEOUT,
        metadata: Metadata | None = None,
        retry: RetryPolicy | None = DEFAULT_RETRY,
        reconnect_waits: ReconnectWaits | None = None,
        options: Sequence[Option] = (),
    ) -> None:
        self._client = TaskLogsClient(
            address,
            token=token,
            tls=tls,
            timeout=timeout,
            metadata=metadata,
            retry=retry,
            reconnect_waits=reconnect_waits,
            options=options,
        )
        self._thread: LoopThread | None = None

    def __enter__(self) -> Self:
        return self.connect()

    def connect(self) -> Self:
        """Open the client, as `with` does, and return it. Call `close` at the end.

        Nothing is sent before the first call. An open client stays as it is; a closed one is opened
        again. Raises UnusableTls, and RuntimeError in a process that was forked after a client was
        opened.
        """
        if self._thread is not None and self._thread.running:
            return self
        thread = self._thread = LoopThread()
        thread.start()
        try:
            thread.run(self._client.connect)
        except BaseException:  # for instance UnusableTls
            thread.stop()
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
        """End every follow, close the connection, end the thread. Closing twice does nothing.

        After a fork, closing the client in the child does nothing either.
        """
        thread = self._thread
        if thread is None or thread.inherited:
            return
        try:
            with suppress(ClientClosed):  # another thread closes it
                thread.run(self._client.close)
        finally:
            thread.stop()

    def _opened(self) -> LoopThread:
        if self._thread is None:
            raise ClientClosed
        return self._thread

    get = _derived(TaskLogsClient.get, _read, returns="SyncTaskLog")
    """Read a task's log."""

    follow = _derived(TaskLogsClient.follow, _follow, returns="SyncFollow")
    """Follow a task's log: an iterator of events."""

    create_task = _derived(TaskLogsClient.create_task, LoopThread.run)
    """Create a task, and the token of its agent."""

    get_task = _derived(TaskLogsClient.get_task, LoopThread.run)
    """Return a task."""

    list_tasks = _derived(TaskLogsClient.list_tasks, _list, returns="SyncTaskList")
    """List tasks, newest first."""

    update_task = _derived(TaskLogsClient.update_task, LoopThread.run)
    """Change the display name or the labels."""

    delete_task = _derived(TaskLogsClient.delete_task, LoopThread.run)
    """Delete a task and its log permanently."""

    report_build = _derived(TaskLogsClient.report_build, LoopThread.run)
    """Report on a workspace build."""

    report_agent = _derived(TaskLogsClient.report_agent, LoopThread.run)
    """Report on the agent and the task app of the latest build."""

    rotate_agent_token = _derived(TaskLogsClient.rotate_agent_token, LoopThread.run)
    """Replace the agent's token."""

    upload_log = _derived(TaskLogsClient.upload_log, LoopThread.run)
    """Store a whole conversation, with the task's agent token."""

    server_info = _derived(TaskLogsClient.server_info, LoopThread.run)
    """Return the server's version, features and limits."""
