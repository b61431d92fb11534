"""Reading the log: one statement finds the task, its facts, its head and one page of entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from tasklogs.log import delta
from tasklogs_server.domain.errors import LogCorrupt, TaskNotFound
from tasklogs_server.domain.names import TaskId, TaskRef
from tasklogs_server.store.connections import Connection, Connections
from tasklogs_server.store.encoding import encode_head
from tasklogs_server.store.records import Tail, TailHead, Task
from tasklogs_server.store.task_rows import TASK_COLUMNS, TASK_TABLES, Standing, head_of, task_of

if TYPE_CHECKING:
    import asyncpg

# The range [$7, $8) of ordinals, or the last $6 entries, of epoch $5 (NULL: the current one), from
# its start up to $9 rows and about $10 bytes: an entry is on the page if what is before it has not
# filled it, so there is always at least one. Entries come joined as they travel; only a tail with
# parts comes apart (its row is older than its parts), and only where the page reaches it.
# - LIMIT stands inside the window, so a page looks at no more rows than it may return.
# - "The last N" is a range of ordinals: it costs the same on any length of log.
_READ = f"""
WITH task AS MATERIALIZED (
    SELECT {TASK_COLUMNS},
           coalesce($5::int, h.epoch) AS read_epoch,
           h.tail_part_bytes > 0 AND coalesce($5, h.epoch) = h.epoch AS tail_in_parts
      FROM {TASK_TABLES}
     WHERE t.task_id = coalesce(
               $4::uuid,
               (SELECT n.task_id FROM task_names n WHERE n.owner = $11 AND n.name = $12))
       AND t.deleted_at IS NULL
), epoch AS (
    SELECT task.*,
           CASE WHEN read_epoch = epoch THEN entries
                ELSE coalesce((SELECT max(ordinal) + 1 FROM log_entries
                                WHERE task_id = task.task_id AND epoch = read_epoch), 0)
           END AS epoch_entries,
           (SELECT e.ordinal FROM log_entries e
             WHERE e.task_id = task.task_id AND e.epoch = read_epoch
             ORDER BY e.ordinal LIMIT 1) AS first_ordinal,
           (SELECT e.id FROM log_entries e
             WHERE e.task_id = task.task_id AND e.epoch = read_epoch
             ORDER BY e.ordinal LIMIT 1) AS first_id
      FROM task
), range AS (
    SELECT epoch.*,
           coalesce($7::int, greatest(first_ordinal, epoch_entries - $6::int, 0)) AS range_start,
           coalesce($8::int, epoch_entries) AS range_end
      FROM epoch
)
SELECT range.*, page.encoded, page.rows, page.page_bytes, page.last_ordinal,
       tail.content AS tail_content, tail.keeps AS tail_keeps, tail.texts AS tail_texts
  FROM range
  LEFT JOIN LATERAL (
    SELECT string_agg(w.head || w.content, ''::bytea ORDER BY w.ordinal) AS encoded,
           count(*) AS rows, sum(w.size) AS page_bytes, max(w.ordinal) AS last_ordinal
      FROM (SELECT e.ordinal, e.head, e.content,
                   octet_length(e.head) + octet_length(e.content) AS size,
                   sum(octet_length(e.head) + octet_length(e.content))
                       OVER (ORDER BY e.ordinal) AS running
              FROM log_entries e
             WHERE e.task_id = range.task_id AND e.epoch = range.read_epoch
               AND e.ordinal >= range.range_start
               AND e.ordinal < CASE WHEN range.tail_in_parts
                                    THEN least(range.range_end, range.entries - 1)
                                    ELSE range.range_end END
             ORDER BY e.ordinal
             LIMIT $9) w
     WHERE w.running - w.size < $10
  ) page ON true
  LEFT JOIN LATERAL (
    SELECT e.content,
           (SELECT array_agg(p.keep_bytes ORDER BY p.revision) FROM log_tail_parts p
             WHERE p.task_id = range.task_id) AS keeps,
           (SELECT array_agg(p.text ORDER BY p.revision) FROM log_tail_parts p
             WHERE p.task_id = range.task_id) AS texts
      FROM log_entries e
     WHERE e.task_id = range.task_id AND e.epoch = range.read_epoch AND e.ordinal = range.entries -
     1
  ) tail ON range.tail_in_parts
        AND range.range_end >= range.entries
        AND coalesce(page.last_ordinal, range.range_start - 1) = range.entries - 2
"""

_TAIL = """
    SELECT e.content,
           (SELECT array_agg(p.keep_bytes ORDER BY p.revision) FROM log_tail_parts p
             WHERE p.task_id = $1) AS keeps,
           (SELECT array_agg(p.text ORDER BY p.revision) FROM log_tail_parts p
             WHERE p.task_id = $1) AS texts
      FROM log_entries e
      JOIN log_heads h USING (task_id, epoch)
     WHERE e.task_id = $1 AND e.ordinal = h.entries - 1 AND h.tail_id IS NOT NULL"""


@dataclass(frozen=True, slots=True)
class PageQuery:
    """Which entries to read.

    `start` and `end` are ordinals, for the pages after the first; without them the last `tail`
    entries (None: all) of `epoch` (None: the current one). `rows` and `page_bytes` bound the page;
    the last entry on it may go beyond the bytes.
    """

    epoch: int | None = None
    tail: int | None = None
    start: int | None = None
    end: int | None = None
    rows: int = 1000
    page_bytes: int = 1_000_000


@dataclass(frozen=True, slots=True)
class LogPage:
    """A task and one page of its log, of one moment.

    `encoded`: the entries as the field `logs` travels. `next_ordinal` is where the next page
    begins; it equals `end` on the last page.
    """

    task: Task
    epoch: int
    first_id: int | None
    first_ordinal: int
    encoded: bytes
    next_ordinal: int
    end: int


class LogReads:
    """Reads of logs.

    Raises StoreUnavailable, and LogCorrupt where stored bytes do not fit together.
    """

    def __init__(self, connections: Connections, standing: Standing) -> None:
        self._connections = connections
        self._standing = standing

    async def page(self, ref: TaskRef, query: PageQuery) -> LogPage:
        """Read one page. Raises TaskNotFound."""
        async with self._connections.use() as connection:
            row = await connection.fetchrow(
                _READ,
                *self._standing,
                ref.id if isinstance(ref, TaskId) else None,
                query.epoch,
                query.tail,
                query.start,
                query.end,
                query.rows,
                query.page_bytes,
                None if isinstance(ref, TaskId) else ref.owner,
                None if isinstance(ref, TaskId) else ref.name,
            )
        if row is None:
            raise TaskNotFound(str(ref))
        return _page_of(row, query)


async def read_tail(connection: Connection, task_id: UUID) -> bytes:
    """Return the content of the tail, parts folded in; there must be one."""
    row = await connection.fetchrow(_TAIL, task_id)
    if row is None:
        raise LogCorrupt
    return _fold(row["content"], row["keeps"], row["texts"])


def _page_of(row: asyncpg.Record, query: PageQuery) -> LogPage:
    task = task_of(row)
    encoded: bytes = row["encoded"] or b""
    end: int = row["range_end"]
    last: int | None = row["last_ordinal"]
    next_ordinal = end if last is None else last + 1
    if row["tail_content"] is not None:
        # The page reached the place before the tail; whether it has room for it decides.
        next_ordinal = row["entries"] - 1
        if row["rows"] < query.rows and (row["page_bytes"] or 0) < query.page_bytes:
            content = _fold(row["tail_content"], row["tail_keeps"], row["tail_texts"])
            encoded += _encode(Tail(_tail_head(row), content))
            next_ordinal += 1
    return LogPage(
        task=task,
        epoch=row["read_epoch"],
        first_id=row["first_id"],
        first_ordinal=row["first_ordinal"] or 0,
        encoded=encoded,
        next_ordinal=next_ordinal,
        end=end,
    )


def _tail_head(row: asyncpg.Record) -> TailHead:
    tail = head_of(row).tail
    if tail is None:
        raise LogCorrupt
    return tail


def _encode(tail: Tail) -> bytes:
    head = tail.head
    return (
        encode_head(
            head.id, head.type, head.time, head.revision, head.dropped_bytes, len(tail.content)
        )
        + tail.content
    )


def _fold(base: bytes, keeps: list[int] | None, texts: list[bytes] | None) -> bytes:
    if not keeps or not texts:
        return base
    content = bytearray(base)
    try:
        for keep_bytes, text in zip(keeps, texts, strict=True):
            delta.patch(content, delta.Delta(keep_bytes, text))
    except ValueError as error:
        raise LogCorrupt from error
    return bytes(content)
