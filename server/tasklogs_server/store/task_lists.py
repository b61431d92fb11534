"""Lists of tasks: the statements, and a page of a list."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from tasklogs_server.domain.description import TaskView
from tasklogs_server.domain.labels import LabelSelector
from tasklogs_server.store.connections import Connection
from tasklogs_server.store.records import Task
from tasklogs_server.store.task_rows import TASK_TABLES, VIEW_COLUMNS, LeaseTerms, task_of

LIST_BYTES = 1_000_000
"""About how many bytes of prompts and labels a page of a list holds. 1,000 tasks could have 130 MB.
"""

SCAN_ROWS = 100_000
"""How many tasks a page of a list searches for labels, at most. This takes 0.1 to 0.3 s."""

ListPosition = tuple[datetime, UUID]
"""When the last task of a page was created, and its id. The next page begins after this task."""

NEWEST: ListPosition = (datetime.max, UUID(int=2**128 - 1))
"""The position before the first task of a list."""


# Newest first, after a position (created_at, task_id): at most $6 tasks and about $7 bytes of
# prompts and labels. Postgres knows these sizes without reading the values. `found` counts the
# tasks before bytes end the page. The statements differ by their text, because one with
# "owner = $8 OR $8 IS NULL" would use neither index, and a column that is not selected is not read.
# OFFSET 0 keeps Postgres from joining the page with all rows of log_heads: it knows no limit when
# it plans (80 ms instead of 1 ms with 100,000 tasks).
#
# A filter of labels applies to the next SCAN_ROWS tasks. It has no index. With one, Postgres would
# take it or the order by age, without knowing how many tasks match: the wrong choice reads all
# tasks of the owner for each page. In the order by age, all pages together read each task once. The
# limit is a parameter, because Postgres sorts all tasks if it knows that the limit is high.
def _list(view: TaskView, *, of_owner: bool, labelled: bool) -> str:
    owner = "AND t.owner = $8" if of_owner else ""
    number = 9 if of_owner else 8
    size = "pg_column_size(t.labels)"
    if view is TaskView.FULL:
        size += " + octet_length(t.prompt)"
    tasks = f"""
        SELECT t.task_id, t.created_at, t.labels, {size} AS size
          FROM tasks t
         WHERE (t.created_at, t.task_id) < ($4, $5) AND t.deleted_at IS NULL {owner}
         ORDER BY t.created_at DESC, t.task_id DESC"""
    if labelled:
        tasks = f"""
        SELECT * FROM ({tasks} LIMIT ${number}) t
         WHERE t.labels @> ALL (${number + 1}::jsonb[]) AND t.labels ?& ${number + 2}::text[]
         ORDER BY t.created_at DESC, t.task_id DESC"""
    return f"""
    WITH page AS MATERIALIZED (
        SELECT p.task_id, count(*) OVER () AS found,
               sum(p.size) OVER (ORDER BY p.created_at DESC, p.task_id DESC) - p.size
                   AS bytes_before
          FROM ({tasks} LIMIT $6) p
    )
    SELECT task.*, page.found
      FROM page CROSS JOIN LATERAL (
           SELECT {VIEW_COLUMNS[view]} FROM {TASK_TABLES} WHERE t.task_id = page.task_id OFFSET 0
           ) task
     WHERE page.bytes_before < $7
     ORDER BY task.created_at DESC, task.task_id DESC"""


def _scan_end(*, of_owner: bool) -> str:
    owner = "AND t.owner = $4" if of_owner else ""
    return f"""
    SELECT t.created_at, t.task_id
      FROM tasks t
     WHERE (t.created_at, t.task_id) < ($1, $2) AND t.deleted_at IS NULL {owner}
     ORDER BY t.created_at DESC, t.task_id DESC
    OFFSET $3 - 1 LIMIT 1"""


_LISTS = {
    (view, of_owner, labelled): _list(view, of_owner=of_owner, labelled=labelled)
    for view in TaskView
    for of_owner in (False, True)
    for labelled in (False, True)
}
_SCAN_ENDS = {of_owner: _scan_end(of_owner=of_owner) for of_owner in (False, True)}


async def read_page(
    connection: Connection,
    lease_terms: LeaseTerms,
    *,
    owner: str | None,
    after: ListPosition,
    limit: int,
    labels: Sequence[LabelSelector],
    view: TaskView,
) -> tuple[Sequence[Task], ListPosition | None]:
    """Read up to `limit` tasks, newest first, after a position: those with all of `labels`.

    The second value is the position of the next page, None on the last page. A page ends at
    LIST_BYTES of prompts and labels. It also ends, perhaps without a task, when many tasks were
    searched for `labels`.
    """
    arguments: list[object] = [*lease_terms, *after, limit + 1, LIST_BYTES]
    if owner is not None:
        arguments.append(owner)
    if labels:
        with_value = [one for one in labels if one.value is not None]
        arguments.append(SCAN_ROWS)
        arguments.append([json.dumps({one.key: one.value}) for one in with_value])
        arguments.append([one.key for one in labels if one.value is None])
    statement = _LISTS[view, owner is not None, bool(labels)]
    if not labels:
        return _page(await connection.fetch(statement, *arguments), limit)
    # At one moment. A deletion between the two statements would move the end of the search past a
    # task that was not searched.
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        page, position = _page(await connection.fetch(statement, *arguments), limit)
        if position is None:
            searched = [*after, SCAN_ROWS, *([] if owner is None else [owner])]
            end = await connection.fetchrow(_SCAN_ENDS[owner is not None], *searched)
            position = None if end is None else (end["created_at"], end["task_id"])
    return page, position


def _page(rows: Sequence[asyncpg.Record], limit: int) -> tuple[Sequence[Task], ListPosition | None]:
    page = [task_of(row) for row in rows[:limit]]
    has_more = bool(rows) and rows[0]["found"] > len(page)
    return page, (page[-1].created_at, page[-1].task_id) if has_more else None
