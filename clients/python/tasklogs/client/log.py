"""A log that is read page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime

from tasklogs.client import decode
from tasklogs.client.entry import LogEntry
from tasklogs.client.page import Page
from tasklogs.enums import TaskStatus
from tasklogs.v1 import task_logs_pb2


class TaskLog:
    """The result of one read of a task's log.

    The attributes come from the first page. The entries come page by page: each page is requested
    when it is needed and dropped when the next one comes. Iterate once, with `pages`, `entries` or
    `all`. The iteration raises the errors of a call, and CursorExpired if the entries of a later
    page were evicted in the meantime.
    """

    task_id: str
    """The task's UUID. After a task is deleted, another one may get its name, but never its UUID.
    Empty if the server is older than 0.1."""
    snapshot: bool
    """True: the stored log, of `snapshot_at`. False: the log was brought up to date first."""
    snapshot_at: datetime | None
    """The time (UTC) at which the log was up to date; None: nothing was ever stored."""
    status: TaskStatus
    epoch: int
    """The epoch of the entries, from 1; 0 if nothing was ever stored."""
    revision: int
    """The task's revision. It grows with each committed change."""
    first_id: int | None
    """The id of the oldest stored entry of the epoch; None if it has none."""
    cursor: str
    """Follow the task from here with this cursor."""
    next_page_token: str | None
    """The token of the page after the first one: see Page. None: there is only one page."""

    def __init__(
        self,
        first: task_logs_pb2.GetTaskLogsResponse,
        next_page: Callable[[str], Awaitable[task_logs_pb2.GetTaskLogsResponse]],
    ) -> None:
        self.task_id = first.task_id
        self.snapshot = first.snapshot
        self.snapshot_at = decode.moment(first, "snapshot_at")
        self.status = TaskStatus(first.status)
        self.epoch = first.epoch
        self.revision = first.revision
        self.first_id = first.first_id if first.HasField("first_id") else None
        self.cursor = first.cursor
        self.next_page_token = first.next_page_token or None
        self._first: task_logs_pb2.GetTaskLogsResponse | None = first
        self._next_page = next_page

    async def pages(self) -> AsyncIterator[Page[LogEntry]]:
        """Yield each page, with its entries by id. A second iteration raises RuntimeError."""
        page, self._first = self._first, None
        if page is None:
            raise RuntimeError("this log was already iterated: read it again")
        while True:
            token = page.next_page_token
            entries = Page(map(decode.entry, page.logs), token or None)
            page = None
            yield entries
            del entries
            if not token:
                return
            page = await self._next_page(token)

    async def entries(self) -> AsyncIterator[LogEntry]:
        """Yield the entries of all pages, by id."""
        async for page in self.pages():
            for entry in page:
                yield entry

    async def all(self) -> list[LogEntry]:
        """Return all entries, by id."""
        return [entry async for entry in self.entries()]
