"""The statements of a commit, and their arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import asyncpg

from tasklogs_server.store.connections import Connection
from tasklogs_server.store.named_parameters import NamedStatement
from tasklogs_server.store.records import Commit, EpochOpened, TailHead
from tasklogs_server.store.tail_parts import columns_of

# One statement per task. The statements of a batch are pipelined. Each statement accesses rows of
# one task only, and writes nothing if the task's head does not match. SKIP LOCKED: a batch waits
# for no head. It waits for other rows of a task, up to `lock_timeout`: this service locks them only
# together with the head. The inserts join `written`, so nothing is inserted if the compare-and-set
# failed. Parts are deleted up to the base revision, so the part that this commit adds stays. They
# are later than the tail's row was, so those that were deleted earlier, and are only still in the
# index, are not visited again.
#
_CHANGE = """
WITH locked AS MATERIALIZED (
    SELECT task_id, fence, generation FROM log_heads
     WHERE task_id = :task_id FOR UPDATE SKIP LOCKED
), written AS (
    UPDATE log_heads h
       SET epoch = :epoch, entries = :entries, revision = :revision, bytes = :bytes,
           digest = :digest, snapshot_at = greatest(h.snapshot_at, :snapshot_at),
           tail_id = :tail_id, tail_type = :tail_type, tail_seconds = :tail_seconds,
           tail_nanos = :tail_nanos, tail_revision = :tail_revision, tail_dropped = :tail_dropped,
           tail_part_bytes = :tail_part_bytes, tail_names = :tail_names,
           total_rows = :total_rows
      FROM locked
     WHERE h.task_id = :task_id AND h.task_id = locked.task_id
       AND h.fence = :fence AND h.revision = :base_revision AND h.generation = :generation
    RETURNING h.task_id
), withdrawn AS (
    DELETE FROM log_entries e
     USING written, unnest(:withdrawn_epochs::int[], :withdrawn_ordinals::int[])
                    AS w (epoch, ordinal)
     WHERE e.task_id = :task_id AND e.epoch = w.epoch AND e.ordinal = w.ordinal
    RETURNING e.task_id
{whole}), folded AS (
    DELETE FROM log_tail_parts p USING written
     WHERE {dropped} AND p.task_id = :task_id
       AND p.revision > (SELECT e.revision
                           FROM log_heads h JOIN log_entries e USING (epoch)
                          WHERE h.task_id = :task_id AND e.task_id = :task_id
                            AND e.ordinal = h.entries - 1)
    RETURNING p.task_id
{grown}{noted})
SELECT :task_id AS task_id,
       CASE WHEN EXISTS (SELECT 1 FROM written) THEN 'committed'
            WHEN EXISTS (SELECT 1 FROM locked WHERE generation <> :generation) THEN 'moved'
            WHEN EXISTS (SELECT 1 FROM locked WHERE fence <> :fence) THEN 'fenced'
            WHEN EXISTS (SELECT 1 FROM locked) THEN 'moved'
            WHEN EXISTS (SELECT 1 FROM log_heads WHERE task_id = :task_id) THEN 'locked'
            ELSE 'gone'
       END AS outcome
"""
_INSERT = {
    "whole": """), whole AS (
    INSERT INTO log_entries (task_id, epoch, ordinal, id, revision, head, content, type)
    SELECT :task_id, e.*
      FROM written, unnest(:row_epochs::int[], :row_ordinals::int[], :row_ids::int[],
                           :row_revisions::bigint[], :row_heads::bytea[], :row_contents::bytea[],
                           :row_types::smallint[])
                    AS e (epoch, ordinal, id, revision, head, content, type)
    ON CONFLICT (task_id, epoch, ordinal) DO UPDATE
       SET id = excluded.id, revision = excluded.revision, head = excluded.head,
           content = excluded.content, committed_at = excluded.committed_at, type = excluded.type
    RETURNING task_id
""",
    "grown": """), grown AS (
    INSERT INTO log_tail_parts (task_id, revision, keep_bytes, text)
    SELECT :task_id, :part_revision::bigint, :part_keep_bytes::int, :part_text::bytea
      FROM written WHERE :part_revision IS NOT NULL
""",
    "noted": """), noted AS (
    INSERT INTO log_events (task_id, revision, epoch, ordinal, id, type)
    SELECT :task_id, v.*
      FROM written, unnest(:event_revisions::bigint[], :event_epochs::int[],
                           :event_ordinals::int[], :event_ids::int[], :event_types::smallint[])
                    AS v (revision, epoch, ordinal, id, type)
""",
}
COMMIT = NamedStatement(
    _CHANGE.format(dropped=":drops_parts::boolean AND p.revision <= :base_revision", **_INSERT)
)

# A statement with an INSERT in it is one that Citus divides, which costs 30 times as much. So there
# the new rows come after it, in the same transaction.
#
# Citus does not find the server of a table in which the planner sees that no row can be meant. So
# the condition must not be false at once.
_DROPPED_SHARDED = "p.revision <= CASE WHEN :drops_parts::boolean THEN :base_revision ELSE -1 END"
_COMMIT_SHARDED = NamedStatement(
    _CHANGE.format(dropped=_DROPPED_SHARDED, whole="", grown="", noted="")
)
_INSERT_ENTRY = """
    INSERT INTO log_entries (task_id, epoch, ordinal, id, revision, head, content, type)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (task_id, epoch, ordinal) DO UPDATE
       SET id = excluded.id, revision = excluded.revision, head = excluded.head,
           content = excluded.content, committed_at = excluded.committed_at, type = excluded.type"""
_INSERT_PART = """
    INSERT INTO log_tail_parts (task_id, revision, keep_bytes, text) VALUES ($1, $2, $3, $4)"""
_INSERT_EVENT = """
    INSERT INTO log_events (task_id, revision, epoch, ordinal, id, type)
    VALUES ($1, $2, $3, $4, $5, $6)"""


async def write_commits(
    connection: Connection, commits: Sequence[Commit], is_sharded: bool
) -> Sequence[asyncpg.Record]:
    """Write the commits in one transaction; return a row with the outcome of each."""
    if not commits:
        return ()
    if not is_sharded:
        return await connection.fetchmany(COMMIT.sql, list(map(arguments_of, commits)))
    async with connection.transaction():
        sharded = [_COMMIT_SHARDED.some_of(_values(one)) for one in commits]
        outcomes = await connection.fetchmany(_COMMIT_SHARDED.sql, sharded)
        written = {row["task_id"] for row in outcomes if row["outcome"] == "committed"}
        # One statement for all rows would refuse this.
        if any(
            len({(row.epoch, row.ordinal) for row in one.rows}) < len(one.rows) for one in commits
        ):
            raise asyncpg.CardinalityViolationError("two rows of a commit have the same place")
        for statement, rows in _new_rows([one for one in commits if one.task_id in written]):
            if rows:
                await connection.executemany(statement, rows)
    return outcomes


def _new_rows(commits: Sequence[Commit]) -> Iterator[tuple[str, list[tuple[object, ...]]]]:
    """Yield each statement that inserts rows of these commits, and the rows."""
    yield (
        _INSERT_ENTRY,
        [
            (
                *(one.task_id, row.epoch, row.ordinal, row.id, row.revision),
                *(row.head, row.content, row.type),
            )
            for one in commits
            for row in one.rows
        ],
    )
    yield (
        _INSERT_PART,
        [
            (one.task_id, one.part.revision, *columns_of(one.part.delta))
            for one in commits
            if one.part is not None
        ],
    )
    yield (
        _INSERT_EVENT,
        [
            (one.task_id, event.revision, event.epoch, None, None, None)
            if isinstance(event, EpochOpened)
            else (one.task_id, event.revision, event.epoch, event.ordinal, event.id, event.type)
            for one in commits
            for event in one.events
        ],
    )


def arguments_of(commit: Commit) -> tuple[object, ...]:
    """Return the arguments of COMMIT."""
    return COMMIT.arguments(_values(commit))


def _values(commit: Commit) -> Mapping[str, object]:
    head, tail, part = commit.head, commit.head.tail, commit.part
    rows, events = commit.rows, commit.events
    # A statement must not write a row twice. A new row of the same ordinal overwrites the withdrawn
    # one.
    withdrawn = [event for event in events if not isinstance(event, EpochOpened)]
    if withdrawn:
        taken = {(row.epoch, row.ordinal) for row in rows}
        withdrawn = [event for event in withdrawn if (event.epoch, event.ordinal) not in taken]
    keep_bytes, text = (None, None) if part is None else columns_of(part.delta)
    return {
        "task_id": commit.task_id,
        "fence": commit.fence,
        "base_revision": commit.base_revision,
        "generation": head.generation,
        "epoch": head.epoch,
        "entries": head.entries,
        "revision": head.revision,
        "bytes": head.bytes,
        "digest": head.digest,
        "snapshot_at": head.snapshot_at,
        "total_rows": head.rows,
        "tail_id": None if tail is None else tail.id,
        "tail_type": None if tail is None else int(tail.type),
        "tail_seconds": None if tail is None else tail.time.seconds,
        "tail_nanos": None if tail is None else tail.time.nanos,
        "tail_revision": None if tail is None else tail.revision,
        "tail_dropped": None if tail is None else tail.dropped_bytes,
        "tail_part_bytes": 0 if tail is None else tail.part_bytes,
        "tail_names": None if tail is None else _names(tail),
        "withdrawn_epochs": [event.epoch for event in withdrawn],
        "withdrawn_ordinals": [event.ordinal for event in withdrawn],
        "row_epochs": [row.epoch for row in rows],
        "row_ordinals": [row.ordinal for row in rows],
        "row_ids": [row.id for row in rows],
        "row_revisions": [row.revision for row in rows],
        "row_heads": [row.head for row in rows],
        "row_contents": [row.content for row in rows],
        "row_types": [row.type for row in rows],
        "drops_parts": commit.drops_parts,
        "part_revision": None if part is None else part.revision,
        "part_keep_bytes": keep_bytes,
        "part_text": text,
        "event_revisions": [event.revision for event in events],
        "event_epochs": [event.epoch for event in events],
        "event_ordinals": [None if isinstance(one, EpochOpened) else one.ordinal for one in events],
        "event_ids": [None if isinstance(one, EpochOpened) else one.id for one in events],
        "event_types": [None if isinstance(one, EpochOpened) else one.type for one in events],
    }


def _names(tail: TailHead) -> list[bytes] | None:
    return [name.encode() for name in tail.names] if any(tail.names) else None
