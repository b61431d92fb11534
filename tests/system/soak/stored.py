"""What the store has at the end: as a reader gets it, and as database rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from uuid import UUID

import asyncpg

from tasklogs import LogSource, TaskLogsClient
from tests.system.soak.contents import mark


@dataclass(frozen=True, slots=True)
class StoredEntry:
    id: int
    revision: int
    mark: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row of `log_entries`. The revision of the tail is that of its last part."""

    epoch: int
    ordinal: int
    id: int
    revision: int


@dataclass(repr=False)
class Stored:
    """The stored log of one task."""

    revision: int = 0
    epochs: dict[int, list[StoredEntry]] = field(default_factory=dict)
    """The entries of each epoch as a reader gets them. Epochs count from 1."""
    rows: list[Row] = field(default_factory=list)
    """Ordered by epoch and ordinal."""
    events: list[int] = field(default_factory=list)
    """The revisions of epoch openings and withdrawals."""

    @property
    def last_epoch(self) -> int:
        """The current epoch."""
        return max(self.epochs, default=0)

    def entry(self, epoch: int, entry_id: int) -> StoredEntry | None:
        """Return an entry. If several have the id, return one of them."""
        return self._by_id.get((epoch, entry_id))

    @cached_property
    def _by_id(self) -> dict[tuple[int, int], StoredEntry]:
        return {(epoch, one.id): one for epoch, found in self.epochs.items() for one in found}


async def read_stored(client: TaskLogsClient, dsn: str, task: str) -> Stored:
    """Read the whole log of a task in both ways."""
    current = await client.get(task, source=LogSource.SNAPSHOT, tail=0)
    stored = Stored(current.revision)
    for epoch in range(1, current.epoch + 1):
        log = await client.get(task, source=LogSource.SNAPSHOT, epoch=epoch)
        stored.epochs[epoch] = [
            StoredEntry(one.id, one.revision, mark(one.content)) for one in await log.all()
        ]
    task_id = UUID((await client.get_task(task)).id)
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(_ROWS, task_id)
        stored.rows = [Row(*row) for row in rows]
        events = await connection.fetch(_EVENTS, task_id)
        stored.events = [row["revision"] for row in events]
    finally:
        await connection.close()
    return stored


_ROWS = """
    SELECT e.epoch, e.ordinal, e.id,
           CASE WHEN e.epoch = h.epoch AND e.ordinal = h.entries - 1 AND h.tail_id IS NOT NULL
                THEN h.tail_revision ELSE e.revision END AS revision
      FROM log_entries e JOIN log_heads h USING (task_id)
     WHERE e.task_id = $1
     ORDER BY e.epoch, e.ordinal"""

_EVENTS = "SELECT revision FROM log_events WHERE task_id = $1 ORDER BY revision"
