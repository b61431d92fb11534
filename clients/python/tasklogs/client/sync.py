"""The client without asyncio. It runs the asynchronous client on a loop in another thread."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from tasklogs.client.backoff import ReconnectWaits
from tasklogs.client.client import DEFAULT_RETRY, DEFAULT_TIMEOUT, TaskLogsClient
from tasklogs.client.credentials import Metadata, Token
from tasklogs.client.entry import LogEntry
from tasklogs.client.events import FollowEvent
from tasklogs.client.follow import Follow
from tasklogs.client.log import TaskLog
from tasklogs.client.loop_thread import LoopThread, Steps
from tasklogs.client.page import Page
from tasklogs.client.retry import RetryPolicy
from tasklogs.client.task import Task
from tasklogs.client.task_list import TaskList
from tasklogs.connection.channel import Option
from tasklogs.connection.tls import Tls
from tasklogs.errors import ClientClosed


class SyncFollow(Steps[FollowEvent]):
    """An iterator over the events of a task's log; `with` or `close` ends it."""

    def __init__(self, thread: LoopThread, follow: Follow) -> None:
        super().__init__(thread, follow)
        self._follow = follow

    def __next__(self) -> FollowEvent:
        try:
            return super().__next__()
        except ClientClosed:
            raise StopIteration from None

    @property
    def cursor(self) -> str | None:
        """Continues after the last event that was yielded; None before the first message."""
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
        """End the follow. A thread that iterates it sees the end of the iteration."""
        if self._thread.running:
            self._thread.run(self._follow.aclose())


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
        return Steps(self._thread, self._log.pages())

    def entries(self) -> Iterator[LogEntry]:
        """Yield the entries of all pages, by id. It can be iterated once."""
        return Steps(self._thread, self._log.entries())

    def all(self) -> list[LogEntry]:
        """Return all entries, by id."""
        return self._thread.run(self._log.all())


class SyncTaskList(Steps[Task]):
    """An iterator over tasks. Iterate over it, or over its `pages`, once."""

    def __init__(self, thread: LoopThread, tasks: TaskList) -> None:
        super().__init__(thread, tasks)
        self._tasks = tasks

    def pages(self) -> Iterator[Page[Task]]:
        """Return the iterator over the pages."""
        return Steps(self._thread, self._tasks.pages())


P = ParamSpec("P")
Given = TypeVar("Given")
Returned = TypeVar("Returned")


def _derived(
    method: Callable[Concatenate[TaskLogsClient, P], Given],
    finish: Callable[[LoopThread, Given], Returned],
    returns: str | None = None,
) -> Callable[Concatenate[SyncTaskLogsClient, P], Returned]:
    """Derive a method of SyncTaskLogsClient, with the parameters of `method`.

    `finish` turns the result of `method` (a coroutine, an iterator) into what a program without an
    event loop can use; `returns` names its type if it differs. The docstring is that of `method`
    without its examples.
    """

    def call(self: SyncTaskLogsClient, /, *args: P.args, **kwargs: P.kwargs) -> Returned:
        return finish(self._thread, method(self._client, *args, **kwargs))

    signature = inspect.signature(method)
    if returns is not None:
        signature = signature.replace(return_annotation=returns)
    call.__name__ = method.__name__
    call.__qualname__ = f"SyncTaskLogsClient.{method.__name__}"
    call.__doc__ = _without_examples(inspect.getdoc(method) or "")
    call.__signature__ = signature  # type: ignore[attr-defined]
    return call


def _read(thread: LoopThread, work: Coroutine[Any, Any, TaskLog]) -> SyncTaskLog:
    return SyncTaskLog(thread, thread.run(work))


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

    The functions that are passed to it (`token`, `on_reconnect`) run in its own thread. Several
    threads may share a client, but not a follow.
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
        self._thread = LoopThread()

    def __enter__(self) -> Self:
        return self.connect()

    def connect(self) -> Self:
        """Open the client, as `with` does, and return it. Call `close` at the end."""
        if self._thread.running:
            return self
        self._thread.start()
        try:
            self._thread.run(self._client.connect())
        except BaseException:  # for instance UnusableTls
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

    get = _derived(TaskLogsClient.get, _read, returns="SyncTaskLog")
    """Read a task's log."""

    follow = _derived(TaskLogsClient.follow, SyncFollow, returns="SyncFollow")
    """Follow a task's log: an iterator of events."""

    create_task = _derived(TaskLogsClient.create_task, LoopThread.run)
    """Create a task, and the token of its agent."""

    get_task = _derived(TaskLogsClient.get_task, LoopThread.run)
    """Return a task."""

    list_tasks = _derived(TaskLogsClient.list_tasks, SyncTaskList, returns="SyncTaskList")
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
