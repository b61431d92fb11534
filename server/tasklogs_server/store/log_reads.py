"""Reads of the log: one statement finds the task, its facts, its head and a page of entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from tasklogs_server.domain.errors import LogCorrupt, TaskNotFound
from tasklogs_server.domain.names import TaskId, TaskRef
from tasklogs_server.store.connections import Connection, Connections
from tasklogs_server.store.later_pages import READ_LATER, later_page_of, search_rows
from tasklogs_server.store.tail_parts import folded
from tasklogs_server.store.task_names import id_of
from tasklogs_server.store.task_rows import TASK, LeaseTerms, lost_ordinal, tail_of, which_task
from tasklogs_server.store.task_states import STATE_COLUMNS, TaskState, state_of
from tasklogs_server.wire.entries import encode_head

if TYPE_CHECKING:
    import asyncpg


# One statement for the whole read, so that all of it has the same snapshot. It is the hottest
# statement: it selects only what a read needs. What only some reads need (for a log of more than a
# page, a later page, a tail in parts, a lease) is in a CASE, which the other reads do not evaluate,
# or behind a filter that is checked once, before a scan: OFFSET 0 keeps it there.
#
# It reads the range [$7, $8) of ordinals, or the last $6 entries, of epoch $5 (NULL: the current
# one), at most $9 rows and about $10 bytes. An entry is on the page if the entries before it do not
# fill the page, so a page has at least one entry. Entries are stored in the form in which they are
# sent. Only a tail with parts is read separately (its row is older than its parts), and only if the
# page reaches it.
#
# "The last N" is a range of ordinals, so its cost does not depend on the length of the log. With
# OFFSET 0 the planner computes a range once, not in each expression that uses it.
#
# Deleted rows are in the indexes until a vacuum. So no scan begins before the first entry that is
# not evicted (`lost_ordinal`), or before the first part that is not folded: parts are later than
# their entry's row.
#
# `task` is how the conditions name the task. In a read by id it is the id, so that Citus knows the
# server of each table. A read by name finds the id in `task_names`.
def _statement(task: str, encoded: str, page: str) -> str:
    """Return a read with this array of encoded entries, and this definition of r and c."""
    return f"""
SELECT {STATE_COLUMNS},
       h.entries, h.tail_id, h.tail_type, h.tail_seconds, h.tail_nanos, h.tail_revision,
       h.tail_dropped, h.tail_part_bytes, h.tail_names,
       CASE WHEN $7::int IS NOT NULL THEN h.lost_after END AS lost_after,
       c.read_epoch, c.range_start, c.range_end, c.cut, c.first_id,
       {encoded} AS encoded,
       c.tail_is_next,
       tail.content AS tail_content,
       CASE WHEN c.tail_is_next THEN ARRAY(
           SELECT p.keep_bytes FROM log_tail_parts p
            WHERE p.task_id = {task} AND p.revision > tail.revision ORDER BY p.revision
       ) END AS tail_keeps,
       CASE WHEN c.tail_is_next THEN ARRAY(
           SELECT p.text FROM log_tail_parts p
            WHERE p.task_id = {task} AND p.revision > tail.revision ORDER BY p.revision
       ) END AS tail_texts
  FROM tasks t
  JOIN log_heads h ON h.task_id = {task}
  CROSS JOIN LATERAL (
    SELECT coalesce($5::int, h.epoch) AS read_epoch,
           CASE WHEN coalesce($5, h.epoch) = h.epoch THEN h.entries
                ELSE coalesce((SELECT max(e.ordinal) + 1 FROM log_entries e
                                WHERE e.task_id = {task} AND e.epoch = $5
                                  AND e.ordinal > {lost_ordinal("$5")}), 0)
           END AS entries,
           {lost_ordinal("coalesce($5, h.epoch)")} AS lost_ordinal,
           h.tail_part_bytes > 0 AND coalesce($5, h.epoch) = h.epoch AS tail_in_parts
    OFFSET 0
  ) g
  LEFT JOIN LATERAL (
    SELECT e.ordinal, e.id FROM log_entries e
     WHERE e.task_id = {task} AND e.epoch = g.read_epoch AND e.ordinal > g.lost_ordinal
     ORDER BY e.ordinal LIMIT 1
  ) first ON true
{page}
  LEFT JOIN LATERAL (
    SELECT e.revision, e.content FROM log_entries e
     WHERE c.tail_is_next
       AND e.task_id = {task} AND e.epoch = h.epoch AND e.ordinal = h.entries - 1
    OFFSET 0
  ) tail ON true
 WHERE {which_task(task, "$11", "$12")}"""


def _end_of_page(task: str, rows: str) -> str:
    """Return a query for the ordinal after a page that ends within so many rows.

    It has a WHERE clause to which a condition on the entry that ends the page can be added.
    """
    return f"""SELECT max(w.ordinal) + 1
                                 FROM (SELECT e.ordinal,
                                              octet_length(e.head) + octet_length(e.content)
                                                  AS size,
                                              sum(octet_length(e.head) + octet_length(e.content))
                                                  OVER (ORDER BY e.ordinal
                                                         ROWS UNBOUNDED PRECEDING) AS running
                                         FROM log_entries e
                                        WHERE e.task_id = {task} AND e.epoch = g.read_epoch
                                          AND e.ordinal >= r.range_start
                                          AND e.ordinal < least(r.rows_end,
                                                                r.range_start + {rows})) w
                                WHERE w.running - w.size < $10"""


def _read(task: str) -> str:
    return _statement(
        task,
        f"""ARRAY(
           SELECT e.head || e.content FROM log_entries e
            WHERE e.task_id = {task} AND e.epoch = c.read_epoch
              AND e.ordinal >= c.range_start AND e.ordinal < c.cut
            ORDER BY e.ordinal
       )""",
        f"""  CROSS JOIN LATERAL (
    SELECT greatest(coalesce($7::int, g.entries - $6::int), first.ordinal, 0) AS range_start,
           coalesce($8::int, g.entries) AS range_end,
           -- Each entry before this ordinal is exactly its row.
           CASE WHEN g.tail_in_parts THEN least(coalesce($8, g.entries), g.entries - 1)
                ELSE coalesce($8, g.entries) END AS rows_end
    OFFSET 0
  ) r
  CROSS JOIN LATERAL (
    SELECT g.read_epoch, r.range_start, r.range_end, first.id AS first_id, b.cut,
           g.tail_in_parts AND r.range_start < g.entries AND r.range_end >= g.entries
               AND b.cut >= g.entries - 1 AS tail_is_next
      FROM (SELECT CASE WHEN h.bytes <= $10
                        THEN least(r.rows_end, r.range_start + $9)
                        ELSE coalesce(
                            ({_end_of_page(task, search_rows("$9", "$10"))} AND w.running >= $10),
                            ({_end_of_page(task, "$9")}),
                            r.rows_end)
                   END AS cut) b
    OFFSET 0
  ) c""",
    )


# The same read, of entries of some types only. It is a statement of its own, so that the hottest
# one stays as it is. For each type an index has the ordinals in order: they are merged before an
# entry is read, by its place in the table. So the cost depends on the entries of these types that
# are on the page (or among the last $6), and not on those of other types between them.
#
# With `e.type = wanted.type` the planner may prefer the primary key, which has the same order, and
# filter: it does not know how rare this type is in this log. So the type is in the comparisons and
# in the order.
def _read_of_types(task: str) -> str:
    types = "$13" if task == TASK[True] else "$12"
    return _statement(
        task,
        "c.encoded",
        f"""  CROSS JOIN LATERAL (
    SELECT greatest(coalesce($7::int, last.ordinal), first.ordinal, 0) AS range_start,
           coalesce($8::int, g.entries) AS range_end,
           CASE WHEN g.tail_in_parts THEN least(coalesce($8, g.entries), g.entries - 1)
                ELSE coalesce($8, g.entries) END AS rows_end
      FROM (SELECT CASE WHEN $7::int IS NULL AND $6::int < g.entries THEN coalesce((
                       SELECT min(n.ordinal)
                         FROM (SELECT m.ordinal
                                 FROM unnest({types}::smallint[]) AS wanted (type)
                                CROSS JOIN LATERAL (
                                   SELECT e.ordinal FROM log_entries e
                                    WHERE e.task_id = {task}
                                      AND (e.type, e.epoch, e.ordinal)
                                          > (wanted.type, g.read_epoch, g.lost_ordinal)
                                      AND (e.type, e.epoch, e.ordinal)
                                          < (wanted.type, g.read_epoch, g.entries)
                                    ORDER BY e.type DESC, e.epoch DESC, e.ordinal DESC LIMIT $6
                                ) m
                                ORDER BY m.ordinal DESC LIMIT $6) n
                   ), g.entries) END AS ordinal) last
    OFFSET 0
  ) r
  CROSS JOIN LATERAL (
    SELECT g.read_epoch, r.range_start, r.range_end, first.id AS first_id,
           coalesce(p.encoded, ARRAY[]::bytea[]) AS encoded, n.tail_is_next,
           -- Where the next page begins.
           CASE WHEN p.more THEN p.last + 1
                WHEN n.tail_is_next THEN r.rows_end
                ELSE r.range_end END AS cut
      FROM (SELECT array_agg(w.head || w.content ORDER BY w.ordinal) FILTER (WHERE w.fits)
                       AS encoded,
                   max(w.ordinal) FILTER (WHERE w.fits) AS last,
                   coalesce(bool_or(NOT w.fits), false) AS more
              FROM (SELECT k.ordinal, e.head, e.content,
                           k.number <= $9
                               AND sum(octet_length(e.head) + octet_length(e.content))
                                       OVER (ORDER BY k.ordinal)
                                   - octet_length(e.head) - octet_length(e.content) < $10 AS fits
                      FROM (SELECT m.*, row_number() OVER (ORDER BY m.ordinal) AS number
                              FROM unnest({types}::smallint[]) AS wanted (type)
                             CROSS JOIN LATERAL (
                                SELECT e.ordinal, e.ctid AS row_id FROM log_entries e
                                 WHERE e.task_id = {task}
                                   AND (e.type, e.epoch, e.ordinal)
                                       >= (wanted.type, g.read_epoch, r.range_start)
                                   AND (e.type, e.epoch, e.ordinal)
                                       < (wanted.type, g.read_epoch, r.rows_end)
                                 ORDER BY e.type, e.epoch, e.ordinal LIMIT $9 + 1
                             ) m
                             ORDER BY m.ordinal LIMIT $9 + 1) k
                     CROSS JOIN LATERAL (
                        SELECT e.head, e.content FROM log_entries e
                         WHERE e.task_id = {task} AND e.ctid = k.row_id
                        OFFSET 0
                     ) e) w) p
     CROSS JOIN LATERAL (
        SELECT NOT p.more AND g.tail_in_parts AND h.tail_type = ANY ({types})
               AND r.range_start < g.entries AND r.range_end >= g.entries AS tail_is_next
     ) n
    OFFSET 0
  ) c""",
    )


_READ = {by_name: _read(task) for by_name, task in TASK.items()}
_READ_OF_TYPES = {by_name: _read_of_types(task) for by_name, task in TASK.items()}

_TAIL = """
    SELECT e.content,
           (SELECT array_agg(p.keep_bytes ORDER BY p.revision) FROM log_tail_parts p
             WHERE p.task_id = $1 AND p.revision > e.revision) AS keeps,
           (SELECT array_agg(p.text ORDER BY p.revision) FROM log_tail_parts p
             WHERE p.task_id = $1 AND p.revision > e.revision) AS texts
      FROM log_entries e
      JOIN log_heads h USING (task_id, epoch)
     WHERE e.task_id = $1 AND e.ordinal = h.entries - 1 AND h.tail_id IS NOT NULL"""


@dataclass(frozen=True, slots=True)
class PageQuery:
    """Which entries to read.

    `start` and `end` are ordinals, for pages after the first. Without them: the last `tail` entries
    (None: all) of `epoch` (None: the current one). `rows` and `page_bytes` bound the page; the last
    entry of a page may exceed `page_bytes`. With `types`, only entries of these types count for all
    of this. Empty: all types.
    """

    epoch: int | None = None
    tail: int | None = None
    start: int | None = None
    end: int | None = None
    rows: int = 1000
    page_bytes: int = 1_000_000
    types: tuple[int, ...] = ()

    @property
    def is_later(self) -> bool:
        """Whether it has the whole range of a page after the first, as page tokens have it."""
        return None not in (self.epoch, self.start, self.end)


class PageEntries(NamedTuple):
    """The entries of a page.

    `encoded`: the entries, encoded as the field `logs`. `next_ordinal`: where the next page begins;
    on the last page it equals the page's `end`. `has_tail_parts`: the last one was put together
    from parts.
    """

    encoded: bytes
    next_ordinal: int
    has_tail_parts: bool = False


@dataclass(frozen=True)
class LogPage:
    """A task's state and one page of its log, from one snapshot."""

    state: TaskState
    epoch: int
    first_id: int | None
    start: int
    end: int
    lost_after: Sequence[int] | None
    """As in LogHead. None: it was not read, because this is no later page."""
    _row: asyncpg.Record = field(repr=False)
    _rows: Sequence[bytes] = field(repr=False)
    _query: PageQuery = field(repr=False)

    @property
    def task_id(self) -> UUID:
        """The task."""
        return self.state.task_id

    @property
    def revision(self) -> int:
        """The log's revision."""
        return self.state.revision

    @property
    def snapshot_at(self) -> datetime | None:
        """The stored time of which the log is a true picture."""
        return self.state.snapshot_at

    @cached_property
    def entries(self) -> PageEntries:
        """The entries, joined when they are first asked for.

        Raises LogCorrupt if stored bytes do not fit together.
        """
        row, rows, query = self._row, self._rows, self._query
        encoded = b"".join(rows)
        next_ordinal: int = row["cut"] if query.types else self.start + len(rows)
        if row["tail_is_next"] and len(rows) < query.rows and len(encoded) < query.page_bytes:
            return PageEntries(encoded + _encoded_tail(row), next_ordinal + 1, True)
        # No entry where there should be one: it was withdrawn, and nothing follows it.
        return PageEntries(encoded, next_ordinal if rows else self.end)


class LogReads:
    """Reads of logs.

    Raises StoreUnavailable, and LogCorrupt if Postgres reports corruption.
    """

    def __init__(self, connections: Connections, lease_terms: LeaseTerms) -> None:
        self._connections = connections
        self._lease_terms = lease_terms

    async def page(self, ref: TaskRef, query: PageQuery) -> LogPage:
        """Read one page. Raises TaskNotFound."""
        async with self._connections.use() as connection:
            generation = connection.generation
            if self._connections.sharded:
                ref = await id_of(connection, ref)
            by_name = not isinstance(ref, TaskId)
            values = (
                *self._lease_terms,
                ref.id if isinstance(ref, TaskId) else None,
                query.epoch,
                query.tail,
                query.start,
                query.end,
                query.rows,
                query.page_bytes,
                ref.owner,
                *(() if isinstance(ref, TaskId) else (ref.name,)),
                *((query.types,) if query.types else ()),
            )
            if query.is_later and not query.types:
                later = later_page_of(
                    await connection.fetch(READ_LATER[by_name], *values[:5], *values[6:])
                )
                if later is not None and later.is_whole(query.rows, query.page_bytes):
                    return _page_of(later.row, later.encoded, query, generation)
            statements = _READ_OF_TYPES if query.types else _READ
            row = await connection.fetchrow(statements[by_name], *values)
        if row is None:
            raise TaskNotFound(str(ref))
        return _page_of(row, row["encoded"], query, generation)


async def read_tail(connection: Connection, task_id: UUID) -> tuple[bytes, int]:
    """Return the content of the tail with its parts folded in, and how many parts there are.

    Raises LogCorrupt without a tail.
    """
    row = await connection.fetchrow(_TAIL, task_id)
    if row is None:
        raise LogCorrupt
    keeps = row["keeps"] or ()
    return folded(row["content"], keeps, row["texts"] or ()), len(keeps)


def _page_of(
    row: asyncpg.Record, rows: Sequence[bytes], query: PageQuery, generation: str
) -> LogPage:
    return LogPage(
        state=state_of(row, generation),
        epoch=row["read_epoch"],
        first_id=row["first_id"],
        start=row["range_start"],
        end=row["range_end"],
        lost_after=row["lost_after"],
        _row=row,
        _rows=rows,
        _query=query,
    )


def _encoded_tail(row: asyncpg.Record) -> bytes:
    head = tail_of(row)
    if head is None or row["tail_content"] is None:
        raise LogCorrupt
    content = folded(row["tail_content"], row["tail_keeps"], row["tail_texts"])
    return (
        encode_head(
            head.id,
            head.type,
            head.time,
            head.revision,
            head.dropped_bytes,
            len(content),
            head.names,
        )
        + content
    )
