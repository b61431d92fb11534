"""A log that is read page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime

from tasklogs.client import decode
from tasklogs.client.entry import LogEntry
from tasklogs.enums import TaskStatus
from tasklogs.v1 import task_logs_pb2


class TaskLog:
    """A task's log as one read saw it.

    What the first page decided is here as attributes. The entries come page by page, each page
    asked for when it is wanted and let go when the next one comes: iterate once, by `pages`,
    `entries` or `all`. An iteration raises what a call raises, CursorExpired where the entries of a
    later page have been evicted meanwhile.
    """

    snapshot: bool
    """True: the log as it is stored, of `snapshot_at`. False: brought up to date for this call."""
    snapshot_at: datetime | None
    """The moment (UTC) of which the log is a true picture; None: nothing was ever stored."""
    status: TaskStatus
    epoch: int
    """The epoch of the entries, from 1; 0 when nothing was ever stored."""
    revision: int
    """The task's revision: the count of its committed changes."""
    first_id: int | None
    """The id of the oldest entry of the epoch that is still held; None where it has none."""
    cursor: str
    """To follow the task from here."""

    def __init__(
        self,
        first: task_logs_pb2.GetTaskLogsResponse,
        next_page: Callable[[str], Awaitable[task_logs_pb2.GetTaskLogsResponse]],
    ) -> None:
        self.snapshot = first.snapshot
        self.snapshot_at = decode.moment(first, "snapshot_at")
        self.status = TaskStatus(first.status)
        self.epoch = first.epoch
        self.revision = first.revision
        self.first_id = first.first_id if first.HasField("first_id") else None
        self.cursor = first.cursor
        self._first: task_logs_pb2.GetTaskLogsResponse | None = first
        self._next_page = next_page

    async def pages(self) -> AsyncIterator[tuple[LogEntry, ...]]:
        """Each page's entries, by id. RuntimeError on a second iteration: read again instead."""
        page, self._first = self._first, None
        if page is None:
            raise RuntimeError("this log was iterated already")
        while True:
            token = page.next_page_token
            entries = tuple(map(decode.entry, page.logs))
            page = None
            yield entries
            del entries
            if not token:
                return
            page = await self._next_page(token)

    async def entries(self) -> AsyncIterator[LogEntry]:
        """The entries one by one, by id, over all pages."""
        async for page in self.pages():
            for entry in page:
                yield entry

    async def all(self) -> list[LogEntry]:
        """All entries, by id, held in memory."""
        return [entry async for entry in self.entries()]
