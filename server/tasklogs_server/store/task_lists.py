"""A page of a list of tasks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import overload
from uuid import UUID

import asyncpg

from tasklogs_server.domain.description import TaskView
from tasklogs_server.domain.labels import LabelSelector
from tasklogs_server.domain.status import TaskStatus
from tasklogs_server.store.connections import Connection
from tasklogs_server.store.list_statements import (
    ListFilter,
    page_statement,
    search_end_statement,
)
from tasklogs_server.store.records import Task
from tasklogs_server.store.task_rows import LeaseTerms, task_of

LIST_BYTES = 1_000_000
"""About how many bytes of prompts and labels a page of a list holds. 1,000 tasks could have 130 MB.
"""

SCAN_ROWS = 100_000
"""How many tasks a page of a list searches, at most. This takes 0.1 to 0.3 s."""

SCAN_BYTES = 64_000_000
"""About how many bytes of labels a page of a list reads, at most. A task may have 70 KB of them."""

ListPosition = tuple[datetime, UUID]
"""When the last task of a page was created, and its id. The next page begins after this task."""

NEWEST: ListPosition = (datetime.max, UUID(int=2**128 - 1))
"""The position before the first task of a list."""


class Tasks(Sequence[Task]):
    """Tasks that are decoded each time they are taken. To decode all takes tens of milliseconds."""

    def __init__(self, rows: Sequence[asyncpg.Record]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | Sequence[Task]:
        if isinstance(index, slice):
            return Tasks(self._rows[index])
        return task_of(self._rows[index])


async def read_page(
    connection: Connection,
    lease_terms: LeaseTerms,
    *,
    owner: str | None,
    status: TaskStatus | None,
    after: ListPosition,
    limit: int,
    labels: Sequence[LabelSelector],
    view: TaskView,
    sharded: bool = False,
) -> tuple[Sequence[Task], ListPosition | None]:
    """Read up to `limit` tasks, newest first, after a position: those with `status` and `labels`.

    The second value is the position of the next page, None on the last page. A page ends at
    LIST_BYTES of prompts and labels. It also ends, perhaps without a task, when many tasks were
    searched for `labels`, or for standalone tasks whose lease is over or is not.
    """
    by = ListFilter(owner is not None, bool(labels), status)
    values = dict(zip(LeaseTerms._fields, lease_terms, strict=True))
    values |= dict(zip(("created_at", "task_id"), after, strict=True))
    values |= {"limit": limit + 1, "bytes": LIST_BYTES, "owner": owner}
    values |= {"scan_rows": SCAN_ROWS, "scan_bytes": SCAN_BYTES}
    with_value = [one for one in labels if one.value is not None]
    values["pairs"] = [json.dumps({one.key: one.value}) for one in with_value]
    values["keys"] = [one.key for one in labels if one.value is None]
    statement = page_statement(view, by, sharded=sharded)
    if not by.needs_search:
        return _page(await connection.fetch(statement.sql, *statement.some_of(values)), limit)
    # At one moment. A deletion between the two statements would move the end of the search past a
    # task that was not searched.
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        rows = await connection.fetch(statement.sql, *statement.some_of(values))
        page, position = _page(rows, limit)
        if position is None:
            statement = search_end_statement(by)
            end = await connection.fetchrow(statement.sql, *statement.some_of(values))
            position = None if end is None else (end["created_at"], end["task_id"])
    return page, position


def _page(rows: Sequence[asyncpg.Record], limit: int) -> tuple[Sequence[Task], ListPosition | None]:
    page = rows[:limit]
    has_more = bool(rows) and rows[0]["found"] > len(page)
    return Tasks(page), (page[-1]["created_at"], page[-1]["task_id"]) if has_more else None
