"""The statements of lists of tasks. They differ by their text.

One statement with "owner = :owner OR :owner IS NULL" would use neither index, and a column that is
not selected is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from tasklogs_server.domain.description import TaskView
from tasklogs_server.domain.status import TaskStatus
from tasklogs_server.store.named_parameters import NamedStatement
from tasklogs_server.store.status_sql import (
    IS_HELD,
    LEASE_BEGAN,
    StatusClass,
    class_expression,
    classes,
)
from tasklogs_server.store.task_rows import LEASE_OVER, TASK_TABLES, VIEW_COLUMNS


@dataclass(frozen=True, slots=True)
class ListFilter:
    """By what a list is filtered."""

    of_owner: bool
    labelled: bool
    status: TaskStatus | None = None

    @property
    def needs_search(self) -> bool:
        """Whether tasks are examined that may not be in the list."""
        return self.labelled or self.depends_on_leases

    @property
    def depends_on_leases(self) -> bool:
        """Whether standalone tasks get this status, or lose it, when their lease is over."""
        return self.status is not None and len(classes(self.status)) > 1


_NEWEST_FIRST = "ORDER BY t.created_at DESC, t.task_id DESC"

# No session is lost for as long as the lease while the servers have not been up for that long.
_JUST_UP = ":up_since::timestamptz + :lease::interval >= now()"


_LISTED = {
    view: f"""
    SELECT task.*, page.found
      FROM page CROSS JOIN LATERAL (
           SELECT {columns} FROM {TASK_TABLES} WHERE t.task_id = page.task_id OFFSET 0
           ) task
     WHERE page.bytes_before < :bytes
     ORDER BY task.created_at DESC, task.task_id DESC"""
    for view, columns in VIEW_COLUMNS.items()
}
# Citus refuses a LATERAL join with OFFSET. It sends the page to each server.
_LISTED_SHARDED = {
    view: f"""
    SELECT {columns}, page.found
      FROM page JOIN tasks t ON t.task_id = page.task_id JOIN log_heads h ON h.task_id = t.task_id
     WHERE page.bytes_before < :bytes
     ORDER BY t.created_at DESC, t.task_id DESC"""
    for view, columns in VIEW_COLUMNS.items()
}


# Newest first, after a position (created_at, task_id): at most :limit tasks and about :bytes bytes
# of prompts and labels. Postgres knows these sizes without reading the values. `found` counts the
# tasks before bytes end the page. OFFSET 0 keeps Postgres from joining the page with all rows of
# log_heads: it knows no limit when it plans (80 ms instead of 1 ms with 100,000 tasks).
@cache
def page_statement(view: TaskView, by: ListFilter, *, sharded: bool = False) -> NamedStatement:
    """Return the statement for a page of a list. `sharded`: Citus has distributed the tables."""
    return NamedStatement(
        _named(f"""
    WITH page AS MATERIALIZED (
        SELECT p.task_id, count(*) OVER () AS found,
               sum(p.size) OVER (ORDER BY p.created_at DESC, p.task_id DESC) - p.size
                   AS bytes_before
          FROM ({_matches(view, by)} LIMIT :limit) p
    )
    {_LISTED_SHARDED[view] if sharded else _LISTED[view]}""")
    )


@cache
def search_end_statement(by: ListFilter) -> NamedStatement:
    """Return the statement for where the search of a page ended: after :scan_rows or :scan_bytes.

    It has no row if all tasks were searched.
    """
    return NamedStatement(
        _named(f"""
    SELECT t.created_at, t.task_id
      FROM ({_searched(TaskView.BASIC, by)}) t
     WHERE t.number = :scan_rows OR t.bytes_before + t.label_bytes >= :scan_bytes
     {_NEWEST_FIRST} LIMIT 1""")
    )


# A filter of labels applies to the next :scan_rows tasks. It has no index. With one, Postgres would
# take it or the order by age, without knowing how many tasks match: the wrong choice reads all
# tasks of the owner for each page. In the order by age, all pages together read each task once.
# CASE: the labels of a task after the bound are not read.
def _matches(view: TaskView, by: ListFilter) -> str:
    if not by.needs_search:
        return f"{_candidates(view, by)} {_NEWEST_FIRST}"
    conditions = ["t.bytes_before < :scan_bytes"]
    if by.depends_on_leases:
        conditions.append(f"(t.wants_lease_over IS NULL OR t.wants_lease_over = ({LEASE_OVER}))")
    if by.labelled:
        conditions.append("t.labels @> ALL (:pairs::jsonb[]) AND t.labels ?& :keys::text[]")
    first, *others = conditions
    return f"""
        SELECT * FROM ({_searched(view, by)}) t
         WHERE CASE WHEN {first} THEN {" AND ".join(others)} ELSE false END
         {_NEWEST_FIRST}"""


# The limit is a parameter, because Postgres sorts all tasks if it knows that the limit is high.
def _searched(view: TaskView, by: ListFilter) -> str:
    return f"""
        SELECT *, row_number() OVER search AS number,
               sum(t.label_bytes) OVER search - t.label_bytes AS bytes_before
          FROM ({_candidates(view, by)} {_NEWEST_FIRST} LIMIT :scan_rows) t
        WINDOW search AS ({_NEWEST_FIRST} ROWS UNBOUNDED PRECEDING)"""


# Each branch reads an index in the order of age, and Postgres merges the branches as far as the
# page needs them. The limit of a branch only tells Postgres to plan for the first rows.
def _candidates(view: TaskView, by: ListFilter) -> str:
    if by.status is None:
        return _branch(view, by)
    branches = [one for of in classes(by.status) for one in _branches(view, by, of)]
    if len(branches) == 1:
        return branches[0]
    merged = " UNION ALL ".join(f"({one} {_NEWEST_FIRST} LIMIT :scan_rows)" for one in branches)
    return f"SELECT * FROM ({merged}) t"


def _branches(view: TaskView, by: ListFilter, of: StatusClass) -> Iterator[str]:
    of_class = f"({class_expression()}) = '{of.key}'"
    if of.is_held is None:
        yield _branch(view, by, where=of_class)
    elif of.is_held:
        yield _branch(view, by, of_class, lease_over=by.status is of.after_lease)
    elif by.status is of.after_lease:
        where = f"{of_class} AND NOT ({_JUST_UP})"
        yield _branch(view, by, where, lease_over=True)
    else:
        yield _branch(view, by, f"{of_class} AND {_JUST_UP}", lease_over=False)
        yield _recently_lost(view, by, of)


# Few of all lost sessions were lost during the last lease. They are found by that time. OFFSET 0
# keeps Postgres from reading all tasks of the class in the order of age instead. BETWEEN: Postgres
# assumes that a range with both ends has few rows.
def _recently_lost(view: TaskView, by: ListFilter, of: StatusClass) -> str:
    where = f"""
        t.standalone AND NOT {IS_HELD} AND NOT ({_JUST_UP})
        AND {LEASE_BEGAN} BETWEEN now() - :lease::interval AND 'infinity'"""
    recent = _branch(view, by, where, lease_over=False, also=f"{class_expression()} AS class,")
    columns = "task_id, created_at, size, label_bytes, labels, standalone, transition"
    columns += ", session_process, session_lost_at, wants_lease_over"
    return f"SELECT {columns} FROM ({recent} OFFSET 0) t WHERE t.class = '{of.key}'"


def _branch(
    view: TaskView,
    by: ListFilter,
    where: str | None = None,
    *,
    lease_over: bool | None = None,
    also: str = "",
) -> str:
    size = "pg_column_size(t.labels)"
    label_bytes = size if by.labelled else "0"
    if view is TaskView.FULL:
        size += " + octet_length(t.prompt)"
    wants = "NULL" if lease_over is None else str(lease_over)
    return f"""
        SELECT {also} t.task_id, t.created_at, {size} AS size, {label_bytes} AS label_bytes,
               t.labels, t.standalone, t.transition, t.session_process, t.session_lost_at,
               {wants}::boolean AS wants_lease_over
          FROM tasks t
         WHERE (t.created_at, t.task_id) < (:created_at, :task_id) AND t.deleted_at IS NULL
           {"AND t.owner = :owner" if by.of_owner else ""} {f"AND {where}" if where else ""}"""


_LEASE_TERMS = {"$1": ":process_id", "$2": ":up_since", "$3": ":lease"}


def _named(statement: str) -> str:
    """Name the parameters that the columns of task_rows number."""
    return re.sub(r"\$\d+", lambda number: _LEASE_TERMS[number[0]], statement)
