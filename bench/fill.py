"""Puts logs directly into the store, in the server's own encoding."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import asyncpg

from bench.text import words
from tasklogs.log.entry import EntryType, Time
from tasklogs_server.wire.entries import encode_head

_HEAD = """
    UPDATE log_heads SET epoch = 1, entries = $2, revision = $2 + 1, bytes = $3, snapshot_at = now()
     WHERE task_id = $1"""
_COLUMNS = ["task_id", "epoch", "ordinal", "id", "revision", "head", "content", "type"]


async def fill(dsn: str, tasks: list[UUID], *, entries: int, content_bytes: int) -> None:
    """Give each task a log of one epoch of sealed entries, and leave the table vacuumed."""
    connection = await asyncpg.connect(dsn)
    try:
        for task_id in tasks:
            await connection.copy_records_to_table(
                "log_entries", records=_rows(task_id, entries, content_bytes), columns=_COLUMNS
            )
            await connection.execute(_HEAD, task_id, entries, entries * content_bytes)
        # Prevents an autovacuum during a measurement.
        await connection.execute("VACUUM ANALYZE log_entries")
        await connection.execute("VACUUM ANALYZE log_heads")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


def _rows(task_id: UUID, entries: int, content_bytes: int) -> Iterator[tuple[object, ...]]:
    for ordinal in range(entries):
        type_ = EntryType.OUTPUT if ordinal % 2 else EntryType.INPUT
        time = Time(1_760_000_000 + ordinal, 123_456_000)
        head = encode_head(ordinal, type_, time, ordinal + 2, 0, content_bytes)
        content = words(content_bytes, seed=ordinal % 97).encode()
        yield task_id, 1, ordinal, ordinal, ordinal + 2, head, content, int(type_)
