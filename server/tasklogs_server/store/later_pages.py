"""Reads of the later pages of a log: each entry is a row of the result.

A page of 1 MB as one array costs Postgres two and a half times as much: it copies the entries into
the array, and the array into the message, in memory that it gets from the system for each read.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from tasklogs_server.store.task_rows import TASK, lost_ordinal, which_task
from tasklogs_server.store.task_states import STATE_COLUMNS

if TYPE_CHECKING:
    import asyncpg


def search_rows(rows: str, page_bytes: str) -> str:
    """Return SQL for how many of the next entries may fill a page; `h` is the head.

    By the average size of the log's entries, an eighth more than would fill it.
    """
    return f"""least({rows}, 16 + 9 * {page_bytes}::bigint
                   * greatest(h.total_rows - h.evicted_rows, h.entries)
                   / (8 * greatest(h.bytes - h.evicted_bytes, 1)))::int"""


# The page is in the range [$6, $7) of ordinals of epoch $5: at most $8 rows and about $9 bytes. The
# first row of the result has the task and the range, and no entry. The others have an entry each.
#
# The end of a page is found while its entries are read, so none is read twice. If this is less than
# a page, `goes_on` says that others follow: these are smaller than the average. `reaches_tail` says
# that a tail with parts follows, which is not read here.
#
# ORDER BY would let Postgres copy all of it to sort it. It comes in order, because it is found in
# order, but UNION ALL does not promise that. So the rows are sorted here, which costs nothing then.
def _read_later(task: str) -> str:
    page_task = task if task == TASK[False] else "page.task_id"
    return f"""
WITH page AS MATERIALIZED (
    SELECT {STATE_COLUMNS}, h.lost_after,
           $5::int AS read_epoch, r.range_start, $7::int AS range_end,
           first.id AS first_id, false AS tail_is_next,
           s.search_end,
           s.search_end < least(s.rows_end, r.range_start + $8::int) AS goes_on,
           s.rows_end < $7 AND s.search_end = s.rows_end AS reaches_tail
      FROM tasks t
      JOIN log_heads h ON h.task_id = {task}
     CROSS JOIN LATERAL (
        SELECT {lost_ordinal("$5::int")} AS lost_ordinal,
               -- Each entry before this ordinal is exactly its row.
               CASE WHEN h.tail_part_bytes > 0 AND $5 = h.epoch THEN least($7, h.entries - 1)
                    ELSE $7 END AS rows_end,
               {search_rows("$8", "$9")} AS search_rows
        OFFSET 0
      ) g
      LEFT JOIN LATERAL (
        SELECT e.ordinal, e.id FROM log_entries e
         WHERE e.task_id = {task} AND e.epoch = $5 AND e.ordinal > g.lost_ordinal
         ORDER BY e.ordinal LIMIT 1
      ) first ON true
     CROSS JOIN LATERAL (
        SELECT greatest($6::int, first.ordinal, 0) AS range_start OFFSET 0
      ) r
     CROSS JOIN LATERAL (
        SELECT g.rows_end, least(g.rows_end, r.range_start + g.search_rows) AS search_end OFFSET 0
      ) s
     WHERE {which_task(task, "$10", "$11")}
)
SELECT page.*, -1 AS ordinal, NULL::bytea AS encoded FROM page
UNION ALL
SELECT none.*, found.ordinal, found.encoded
  FROM page
 CROSS JOIN LATERAL (
    SELECT w.ordinal, w.head || w.content AS encoded
      FROM (SELECT e.ordinal, e.head, e.content,
                   sum(octet_length(e.head) + octet_length(e.content))
                       OVER (ORDER BY e.ordinal ROWS UNBOUNDED PRECEDING) AS running
              FROM log_entries e
             WHERE e.task_id = {page_task} AND e.epoch = page.read_epoch
               AND e.ordinal >= page.range_start AND e.ordinal < page.search_end) w
     WHERE w.running - octet_length(w.head) - octet_length(w.content) < $9
  ) found
  LEFT JOIN page none ON false"""


READ_LATER = {by_name: _read_later(task) for by_name, task in TASK.items()}


class LaterPage(NamedTuple):
    """What READ_LATER found: the task with the range, and the encoded entries of the page."""

    row: asyncpg.Record
    encoded: Sequence[bytes]

    def is_whole(self, rows: int, page_bytes: int) -> bool:
        """Whether it is about as long as it should be, or nothing follows."""
        row = self.row
        if not (row["goes_on"] or row["reaches_tail"]) or len(self.encoded) >= rows:
            return True
        least_bytes = page_bytes if row["reaches_tail"] else page_bytes / 2
        return sum(map(len, self.encoded)) >= least_bytes


def later_page_of(rows: Sequence[asyncpg.Record]) -> LaterPage | None:
    """Return the page in the result of READ_LATER; None if there is no such task."""
    if not rows:
        return None
    row, *entries = sorted(rows, key=itemgetter("ordinal"))
    return LaterPage(row, [entry["encoded"] for entry in entries])
