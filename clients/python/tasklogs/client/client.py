"""The TaskLogs client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Self
from uuid import uuid4
from weakref import WeakSet

import grpc.aio
from google.protobuf.field_mask_pb2 import FieldMask

from tasklogs import features
from tasklogs.client import decode
from tasklogs.client.backoff import ReconnectWaits
from tasklogs.client.calls import Call, Calls
from tasklogs.client.credentials import Credentials, Metadata, Token
from tasklogs.client.follow import Follow, Read
from tasklogs.client.follow_streams import FollowStreams, OnReconnect
from tasklogs.client.log import TaskLog
from tasklogs.client.new_entry import Entry
from tasklogs.client.open_calls import OpenCalls
from tasklogs.client.page import Page
from tasklogs.client.retry import RetryPolicy
from tasklogs.client.server_info import Need, ServerFeatures, ServerInfo
from tasklogs.client.task import CreatedTask, Task
from tasklogs.client.task_list import TaskList
from tasklogs.client.upload import UploadedLog, Uploads
from tasklogs.connection.channel import Option, open_channel
from tasklogs.connection.tls import Tls
from tasklogs.enums import (
    AgentLifecycle,
    AppHealth,
    BuildTransition,
    JobStatus,
    LogSource,
    TaskLogType,
    TaskStatus,
    TaskView,
)
from tasklogs.errors import ClientClosed, UnsupportedByServer
from tasklogs.v1 import (
    task_agents_pb2_grpc,
    task_logs_pb2,
    task_logs_pb2_grpc,
    tasks_pb2,
    tasks_pb2_grpc,
    types_pb2,
)

DEFAULT_TIMEOUT = timedelta(seconds=30)
DEFAULT_RETRY = RetryPolicy()
DEFAULT_CONNECT_TIMEOUT = timedelta(seconds=10)

_TYPES: Need = (features.TYPES_FILTER, "types")
_LABELS: Need = (features.TASK_LABELS, "labels")


class TaskLogsClient:
    """A connection to a TaskLogs server, inside an `async with` or from `connect` to `close`.

    >>> import asyncio
    >>> from tasklogs import TaskLogsClient
    >>> async def main() -> None:
    ...     async with TaskLogsClient("127.0.0.1:50051") as client:
    ...         created = await client.create_task("first-steps", standalone=True)
    ...         print(created.task.full_name, created.task.status.name)
    ...         log = await client.get("local/first-steps", tail=10)
    ...         print(log.snapshot, await log.all())
    ...         await client.delete_task("local/first-steps")
    >>> asyncio.run(main())
    local/first-steps PENDING
    True []

    The argument `task` of every method is a task's UUID or `owner/name`.

    `timeout` (30 s) is the limit of each call with a single response; None: no limit. It includes
    the wait for the token, retries and the waits between them. `token` is a bearer token, or a
    function or coroutine function that returns one. It is called before each request, and once more
    if the server refused its token. `tls` (None: plain text) has the trusted authorities, and may
    have a client certificate. Its files are read when the client is opened, which raises
    UnusableTls if they cannot be used. `metadata` is sent with each call. `retry` says how calls
    that change nothing, or that may be repeated, are made again when they fail; None: never.
    `options` are gRPC's channel arguments, which replace those of the library with the same name,
    and `interceptors` are gRPC's. Or pass a `channel` of your own, without `address`: it has its
    own TLS, options and interceptors, and you close it.

    Each method accepts a `timeout` (None: that of the client) and `metadata`, which is added to
    that of the client and replaces values of the same key.

    Every call can raise a TaskLogsRpcError (tasklogs.errors): Unavailable if no server responds,
    DeadlineExceeded after `timeout`, Unauthenticated, PermissionDenied, and the errors in its own
    docstring.

    Use a client only in the event loop that opened it. It can make many calls at the same time.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        token: Token | None = None,
        tls: Tls | None = None,
        timeout: timedelta | None = DEFAULT_TIMEOUT,
        metadata: Metadata | None = None,
        retry: RetryPolicy | None = DEFAULT_RETRY,
        reconnect_waits: ReconnectWaits | None = None,
        options: Sequence[Option] = (),
        interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
        channel: grpc.aio.Channel | None = None,
    ) -> None:
        if (address is None) is (channel is None):
            raise ValueError("give `address` or `channel`")
        if channel is not None and (tls is not None or options or interceptors):
            raise ValueError("`tls`, `options` and `interceptors` belong to your own `channel`")
        self._address = address or ""
        self._tls = tls
        self._options = options
        self._interceptors = interceptors
        self._given_channel = channel
        self._credentials = Credentials(token, metadata)
        self._open_calls = OpenCalls()
        self._calls = Calls(self._credentials, timeout, retry, self._open_calls)
        self._waits = reconnect_waits or ReconnectWaits()
        self._features = ServerFeatures()
        self._channel: grpc.aio.Channel | None = None
        # Weak references: a follow that its reader dropped must end.
        self._follows: WeakSet[Follow] = WeakSet()
        self._reads: set[Read] = set()

    async def __aenter__(self) -> Self:
        return await self.connect()

    async def connect(self) -> Self:
        """Open the client, as `async with` does, and return it. Call `close` at the end.

        Nothing is sent before the first call. An open client stays as it is; a closed one is opened
        again. Raises UnusableTls.
        """
        if self._channel is not None:
            return self
        # The token may change, so each call sends it, not the channel.
        self._channel = self._given_channel or open_channel(
            self._address, tls=self._tls, options=self._options, interceptors=self._interceptors
        )
        self._tasks = tasks_pb2_grpc.TasksStub(self._channel)
        self._logs = task_logs_pb2_grpc.TaskLogsStub(self._channel)
        agents = task_agents_pb2_grpc.TaskAgentsStub(self._channel)
        self._uploads = Uploads(agents, self._calls)
        self._open_calls.open(self._channel)
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End every follow and close the connection. Closing twice does nothing.

        The iteration of a follow ends; another call that runs raises ClientClosed. A `channel` of
        your own stays open.
        """
        self._open_calls.close()
        for follow in tuple(self._follows):
            await follow.aclose()
        # Those of follows that were dropped are ending.
        dropped = self._reads - {asyncio.current_task()}
        for read in dropped:
            read.cancel()
        if dropped:
            await asyncio.wait(dropped)
        if self._channel is not None:
            channel, self._channel = self._channel, None
            if channel is not self._given_channel:
                await channel.close(None)

    async def get(
        self,
        task: str,
        *,
        source: LogSource | None = None,
        tail: int | None = None,
        page_size: int | None = None,
        epoch: int | None = None,
        max_staleness: timedelta | None = None,
        types: Iterable[TaskLogType] = (),
        page_token: str | None = None,
        timeout: timedelta | None = None,
        metadata: Metadata | None = None,
    ) -> TaskLog:
        """Read a task's log: the live log if the task runs, else the stored one.

        `source`: only the live log, or only the stored one. `tail`: only the last N entries; 0
        returns only the status. `page_size`: the most entries of a page (a page ends at about 1 MB
        in any case). `epoch`: an earlier conversation, numbered from 1. `max_staleness`: accept a
        log that was brought up to date at most this long ago. `types`: only entries of these types
        (empty: all types); `tail` counts these alone. `page_token`: begin with this page, of a read
        with the same arguments (Page.next_page_token). `timeout` is the limit of each page.

        >>> async def main() -> None:
        ...     async with TaskLogsClient("127.0.0.1:50051") as client:
        ...         log = await client.get("local/demo", tail=2)
        ...         async for entry in log.entries():
        ...             print(f"{entry.type.name}: {entry.content}")
        >>> asyncio.run(main())
        INPUT: What is 6 times 7?
        OUTPUT: It is 42.

        Raises TaskNotFound; TaskStateConflict if the task's status allows neither; AgentUnreachable
        or TaskAppFailed if a live read failed; UnsupportedByServer if the server does not know
        `types`.
        """
        call = self._begin(timeout, metadata)
        request = task_logs_pb2.GetTaskLogsRequest(
            task=task,
            source=_source(source),
            tail=tail,
            page_size=_page_size(page_size),
            page_token=page_token or "",
            epoch=epoch,
            types=_types(types),
        )
        if max_staleness is not None:
            request.max_staleness.FromTimedelta(max_staleness)

        await self._require([_TYPES] if request.types else [], call)

        async def page(token: str) -> task_logs_pb2.GetTaskLogsResponse:
            request.page_token = token
            later = self._begin(timeout, metadata)
            return await later.unary(self._logs.GetTaskLogs, request, repeatable=True)

        first = await call.unary(self._logs.GetTaskLogs, request, repeatable=True)
        return TaskLog(first, page)

    def follow(
        self,
        task: str,
        *,
        source: LogSource | None = None,
        tail: int | None = None,
        cursor: str | None = None,
        types: Iterable[TaskLogType] = (),
        deltas: bool = True,
        progress: bool = False,
        progress_interval: timedelta | None = None,
        connect_timeout: timedelta | None = DEFAULT_CONNECT_TIMEOUT,
        reconnect_timeout: timedelta | None = None,
        on_reconnect: OnReconnect | None = None,
        metadata: Metadata | None = None,
    ) -> Follow:
        """Follow a task's log: iterate over its events (tasklogs.client.events).

        It yields the status, then the stored entries, CaughtUp, and then every change as it is
        committed. It continues through pauses, resumes, new epochs, and restarts of agent and
        server. Begin with `tail`, the last N entries of the current epoch (None: all, 0: none), or
        with `cursor`, after an event or a read; not with both. An entry that changes is yielded
        again, whole, with the text that was appended. If it changes faster than it is read, only
        its latest state is yielded. `types`: only entries of these types, and only their
        withdrawals (empty: all types); `tail` counts these alone.

        >>> async def main() -> None:
        ...     async with TaskLogsClient("127.0.0.1:50051") as client:
        ...         async for event in client.follow("local/demo"):
        ...             match event:
        ...                 case StatusChanged(status=status):
        ...                     print(f"it is {status.name}")
        ...                 case EntriesChanged(changes=changes):
        ...                     for change in changes:
        ...                         print(f"#{change.entry.id} {change.appended}")
        ...                 case CaughtUp():
        ...                     break  # or go on reading
        >>> from tasklogs import CaughtUp, EntriesChanged, StatusChanged
        >>> asyncio.run(main())
        it is PAUSED
        #0 What is 6 times 7?
        #1 It is 42.

        When its stream breaks (Unavailable, another temporary error, or an end without a reason),
        it reconnects with its last cursor. The wait grows with each failure in a row, or is what
        the server says. `on_reconnect` is called at each failed attempt, before the wait
        (Reconnecting), and when the follow continues (Reconnected). No event is repeated. If no
        stream continues within `reconnect_timeout` (None: no limit), the iteration raises the last
        error.

        The first connection is retried within `connect_timeout` (10 s) if the error may pass, then
        the iteration raises it: the server may be away, or the address or `tls` may be wrong. None:
        wait for the server without a limit. Once a follow runs, a status that does not allow reads
        does not end it.

        `deltas`: a growing entry is sent as its growth; the events are the same. `progress`: yield
        Progress if nothing else came for `progress_interval` (1 s to 1 h; None: 15 s). If a stream
        brings nothing for 10 s longer than that, its connection counts as broken.

        The iteration raises TaskNotFound (also if the task is deleted while it is followed),
        TaskStateConflict, InvalidArgument (for instance a cursor of another task), CursorExpired
        (with `oldest_cursor`), Unauthenticated (after `token` was called once more),
        PermissionDenied, LimitExceeded, LogCorrupt, UnsupportedByServer (the server does not know
        `types` or `progress_interval`).
        """
        if tail is not None and cursor is not None:
            raise ValueError("give `tail` or `cursor`, not both")
        request = task_logs_pb2.FollowTaskLogsRequest(
            task=task,
            source=_source(source),
            tail=tail,
            cursor=cursor or "",
            deltas=deltas,
            types=_types(types),
            compressed=True,
        )
        needs: list[Need] = [_TYPES] if request.types else []
        if progress_interval is not None:
            request.progress_interval.FromTimedelta(progress_interval)
            needs.append((features.PROGRESS_INTERVAL, "progress_interval"))

        async def require() -> None:
            await self._require(needs, self._begin(None, metadata))

        streams = FollowStreams(
            self._opened()._logs.FollowTaskLogs,
            request,
            self._credentials.adding(metadata),
            self._waits,
            require=require,
            progress=progress,
            connect_timeout=connect_timeout,
            reconnect_timeout=reconnect_timeout,
            on_reconnect=on_reconnect,
        )
        follow = Follow(streams, self._reads)
        self._follows.add(follow)
        return follow

    async def create_task(
        self,
        name: str,
        *,
        owner: str = "",
        display_name: str = "",
        prompt: str = "",
        standalone: bool = False,
        labels: Mapping[str, str] | None = None,
        request_id: str | None = None,
        timeout: timedelta | None = None,
        metadata: Metadata | None = None,
    ) -> CreatedTask:
        """Create a task, and the token of its agent, which is shown only once.

        `name` matches `[a-z0-9][a-z0-9._-]{0,62}`. `owner` empty: the caller. `standalone`: there
        are no reports on builds; the status follows from the agent's stream alone.

        A call that fails is repeated as `retry` of the client says. `request_id` (a UUID; None: a
        new one) makes this safe: a repeated call returns the same task and a fresh token. To repeat
        the call yourself, also from another process, give your own `request_id` each time.

        Raises TaskNameTaken; InvalidArgument, also if a task was created with this `request_id` and
        other arguments.
        """
        call = self._begin(timeout, metadata)
        request = tasks_pb2.CreateTaskRequest(
            name=name,
            owner=owner,
            display_name=display_name,
            prompt=prompt,
            standalone=standalone,
            labels=labels,
            request_id=str(uuid4()) if request_id is None else request_id,
        )
        await self._require([_LABELS] if labels else [], call)
        response = await call.unary(
            self._tasks.CreateTask, request, repeatable=bool(request.request_id)
        )
        return CreatedTask(
            task=decode.task(response.task, has_prompt=True), agent_token=response.agent_token
        )

    async def get_task(
        self,
        task: str,
        *,
        view: TaskView = TaskView.FULL,
        timeout: timedelta | None = None,
        metadata: Metadata | None = None,
    ) -> Task:
        """Return a task, without its prompt in the view BASIC. Raises TaskNotFound."""
        request = tasks_pb2.GetTaskRequest(task=task, view=tasks_pb2.TaskView.ValueType(view))
        call = self._begin(timeout, metadata)
        found = await call.unary(self._tasks.GetTask, request, repeatable=True)
        return decode.task(found, has_prompt=view is not TaskView.BASIC)

    def list_tasks(
        self,
        *,
        owner: str = "",
        status: TaskStatus | None = None,
        labels: Sequence[str] = (),
        view: TaskView = TaskView.BASIC,
        page_size: int | None = None,
        page_token: str | None = None,
        timeout: timedelta | None = None,
        metadata: Metadata | None = None,
    ) -> TaskList:
        """List tasks, newest first: of one owner, of one status, or all that the caller may see.

        `labels`: only tasks that have all of these; each is `key=value`, or `key` for any value.
        Tasks have their prompts only in the view FULL. Each page (of 100 tasks, or `page_size`) is
        requested when it is needed. `page_token`: begin with this page, of a list with the same
        arguments (Page.next_page_token). `timeout` is the limit of each page.
        """
        request = tasks_pb2.ListTasksRequest(
            owner=owner,
            labels=labels,
            view=tasks_pb2.TaskView.ValueType(view),
            page_size=_page_size(page_size),
            page_token=page_token or "",
        )
        if status is not None:
            request.status = types_pb2.TaskStatus.ValueType(status)

        async def pages() -> AsyncIterator[Page[Task]]:
            call = self._begin(timeout, metadata)
            await self._require([_LABELS] if labels else [], call)
            while True:
                found = await call.unary(self._tasks.ListTasks, request, repeatable=True)
                request.page_token = found.next_page_token
                yield Page(
                    (decode.task(one, has_prompt=view is TaskView.FULL) for one in found.tasks),
                    found.next_page_token or None,
                )
                if not request.page_token:
                    return
                call = self._begin(timeout, metadata)

        return TaskList(pages())

    async def update_task(
        self,
        task: str,
        *,
        display_name: str | None = None,
        labels: Mapping[str, str] | None = None,
        etag: str | None = None,
        timeout: timedelta | None = None,
        metadata: Metadata | None = None,
    ) -> Task:
        """Change the display name, the labels (all of them are replaced), or both.

        What is None does not change. With the `etag` of the task as you read it, an update in
        between raises EtagMismatch:

        >>> async def main() -> None:
        ...     async with TaskLogsClient("127.0.0.1:50051") as client:
        ...         task = await client.get_task("local/demo")
        ...         labels = {**task.labels, "reviewed": "yes"}
        ...         task = await client.update_task(task.id, labels=labels, etag=task.etag)
        ...         print(dict(task.labels))
        >>> asyncio.run(main())
        {'reviewed': 'yes'}

        Raises TaskNotFound, EtagMismatch and InvalidArgument.
        """
        changed = {"display_name": display_name, "labels": labels}
        request = tasks_pb2.UpdateTaskRequest(
            task=task,
            display_name=display_name or "",
            labels=labels,
            update_mask=FieldMask(
                paths=[key for key, value in changed.items() if value is not None]
            ),
            etag=etag or "",
        )
        call = self._begin(timeout, metadata)
        updated = await call.unary(self._tasks.UpdateTask, request)
        return decode.task(updated, has_prompt=True)

    async def delete_task(
        self,
        task: str,
        *,
        allow_missing: bool = False,
        timeout: timedelta | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        """Delete a task and its log permanently; its name and its token are freed at once.

        Raises TaskNotFound, unless `allow_missing` is set. Only with `allow_missing` is the call
        repeated when it fails: the first call may have deleted the task.
        """
        request = tasks_pb2.DeleteTaskRequest(task=task, allow_missing=allow_missing)
        call = self._begin(timeout, metadata)
        await call.unary(self._tasks.DeleteTask, request, repeatable=allow_missing)

    async def report_build(
        self,
        task: str,
        build_number: int,
        transition: BuildTransition,
        job_status: JobStatus,
        *,
        timeout: timedelta | None = None,
        metadata: Metadata | None = None,
    ) -> Task:
        """Report on a workspace build, numbered from 1. Repeating a report is not an error.

        Returns the task without its prompt. Raises TaskNotFound, StaleReport for an older build or
        a step backwards, TaskStandalone.
        """
        request = tasks_pb2.ReportBuildRequest(
            task=task,
            build_number=build_number,
            transition=types_pb2.BuildTransition.ValueType(transition),
            job_status=types_pb2.JobStatus.ValueType(job_status),
        )
        call = self._begin(timeout, metadata)
        response = await call.unary(self._tasks.ReportBuild, request, repeatable=True)
        return decode.task(response.task, has_prompt=False)

    async def report_agent(
        self,
        task: str,
        build_number: int,
        *,
        lifecycle: AgentLifecycle | None = None,
        app_health: AppHealth | None = None,
        timeout: timedelta | None = None,
        metadata: Metadata | None = None,
    ) -> Task:
        """Report on the agent or the task app of the latest build, or on both.

        What is None does not change. Returns the task without its prompt. Raises TaskNotFound,
        StaleReport for an older build, BuildNotReported for a build that was not reported before,
        TaskStandalone, InvalidArgument.
        """
        request = tasks_pb2.ReportAgentRequest(
            task=task,
            build_number=build_number,
            lifecycle=types_pb2.AgentLifecycle.ValueType(lifecycle or 0),
            app_health=types_pb2.AppHealth.ValueType(app_health or 0),
        )
        call = self._begin(timeout, metadata)
        response = await call.unary(self._tasks.ReportAgent, request, repeatable=True)
        return decode.task(response.task, has_prompt=False)

    async def rotate_agent_token(
        self,
        task: str,
        *,
        timeout: timedelta | None = None,
        metadata: Metadata | None = None,
    ) -> str:
        """Replace the agent's token; the old one is invalid at once. Raises TaskNotFound."""
        request = tasks_pb2.RotateAgentTokenRequest(task=task)
        call = self._begin(timeout, metadata)
        response = await call.unary(self._tasks.RotateAgentToken, request)
        return response.agent_token

    async def upload_log(
        self,
        entries: Iterable[Entry],
        *,
        timeout: timedelta | None = None,
        metadata: Metadata | None = None,
    ) -> UploadedLog:
        """Store a whole conversation. The client's `token` must be the task's agent token.

        If the conversation continues the current epoch, the server stores what is new. If it is an
        earlier state of it, nothing changes. Otherwise it opens the next epoch. So give each entry
        its own `time`: with the time of the call, two uploads are two conversations. The `timeout`
        of the client does not limit the upload of more than 2 MB, which goes in parts: a slow
        network may need minutes. A `timeout` that is given here does.

        Raises FailedPrecondition (`SESSION_OPEN`) while an agent or a Publisher of the task is
        connected, LimitExceeded for more than 100,000 entries or 64 MiB, and Unauthenticated.
        """
        return await self._opened()._uploads.upload(entries, timeout, metadata)

    async def server_info(
        self, *, timeout: timedelta | None = None, metadata: Metadata | None = None
    ) -> ServerInfo:
        """Return the server's version, features and limits. An agent's token is accepted too.

        Raises UnsupportedByServer if the server is older than 0.1.
        """
        return await self._server_info(self._begin(timeout, metadata))

    async def _server_info(self, call: Call) -> ServerInfo:
        request = task_logs_pb2.GetServerInfoRequest()
        try:
            answer = await call.unary(self._logs.GetServerInfo, request, repeatable=True)
        except UnsupportedByServer as error:
            raise UnsupportedByServer(
                code=error.code, message="the server is older than 0.1"
            ) from error
        return decode.server_info(answer)

    async def _require(self, needs: Sequence[Need], call: Call) -> None:
        await self._features.require(needs, partial(self._server_info, call))

    def _begin(self, timeout: timedelta | None, metadata: Metadata | None) -> Call:
        return self._opened()._calls.begin(timeout, metadata)

    def _opened(self) -> Self:
        if self._channel is None:
            raise ClientClosed
        return self


def _source(source: LogSource | None) -> task_logs_pb2.LogSource.ValueType:
    return task_logs_pb2.LogSource.ValueType(source or 0)


def _types(types: Iterable[TaskLogType]) -> list[types_pb2.TaskLogType.ValueType]:
    return [types_pb2.TaskLogType.ValueType(one) for one in types]


def _page_size(page_size: int | None) -> int:
    if page_size is None:
        return 0
    if page_size < 1:  # the server takes 0 for its own default
        raise ValueError("`page_size` is at least 1")
    return page_size
