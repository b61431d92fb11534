"""Commits made by hand, and logs read back through the store."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self
from uuid import UUID

import asyncpg

from tasklogs.log.delta import Delta
from tasklogs.log.entry import EntryType, Time
from tasklogs.v1 import task_logs_pb2, types_pb2
from tasklogs_server.domain.description import NewTask
from tasklogs_server.domain.names import TaskId
from tasklogs_server.store import Store
from tasklogs_server.store.log_reads import LogPage, PageQuery
from tasklogs_server.store.log_writes import Outcome
from tasklogs_server.store.records import (
    Commit,
    EntryRow,
    EpochOpened,
    LogHead,
    TailHead,
    TailPart,
    TailWithdrawn,
)
from tasklogs_server.wire.entries import encode_head

if TYPE_CHECKING:
    from typing import TypeAlias

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ENTRY_COLUMNS = ("task_id", "epoch", "ordinal", "id", "revision", "head", "content", "type")
_numbers = itertools.count(1)
# Higher than the serials of any server that a test runs on the same store.
_serials = itertools.count(1_000_000_000)


async def new_task(store: Store, name: str = "", *, standalone: bool = False) -> UUID:
    """Create a task of owner `local`."""
    task_id = uuid.uuid4()
    new = NewTask("local", name or f"task-{next(_numbers)}", standalone=standalone)
    await store.tasks.create(task_id, new, agent_token_hash=bytes(32))
    return task_id


def decoded(page: LogPage) -> Sequence[types_pb2.TaskLogEntry]:
    """Decode the entries of a page as a client does."""
    return task_logs_pb2.GetTaskLogsResponse.FromString(page.entries.encoded).logs


@dataclass
class Log:
    """A log that a test writes to commit by commit."""

    store: Store
    task_id: UUID
    fence: int
    head: LogHead
    serial: int = 0

    @classmethod
    async def open(cls, store: Store, task_id: UUID) -> Self:
        """Raise the task's fence, for a session without a server."""
        serial = next(_serials)
        opening = await store.sessions.open_session(
            task_id, serial=serial, admit=lambda _: None, connect=lambda facts: facts
        )
        return cls(store, task_id, opening.fence, opening.head, serial)

    async def lose_session(self) -> None:
        """Record that the stream of this session has ended."""
        await self.store.sessions.lose_sessions([self.serial])

    def commit(
        self,
        contents: Sequence[bytes] = (),
        *,
        open_epoch: bool = False,
        withdraw: bool = False,
        grow: bytes | None = None,
        keep: int | None = None,
        change: Delta | None = None,
    ) -> Commit:
        """Make the next commit: open an epoch or withdraw the tail, then add entries; or grow.

        `change`: any change of the tail, in place of `grow` and `keep`.
        """
        head = self.head
        revision, epoch, entries, size = head.revision, head.epoch, head.entries, head.bytes
        total_rows = head.rows + open_epoch + len(contents)
        tail, part = head.tail, None
        events: list[EpochOpened | TailWithdrawn] = []
        rows: list[EntryRow] = []
        if open_epoch:
            revision, epoch, entries = revision + 1, epoch + 1, 0
            events.append(EpochOpened(revision, epoch))
        if withdraw:
            assert tail is not None
            revision, entries = revision + 1, entries - 1
            events.append(TailWithdrawn(revision, epoch, entries, tail.id, tail.type))
            tail = None
        for content in contents:
            revision += 1
            rows.append(entry_row(epoch, entries, revision, content))
            tail = TailHead(entries, EntryType.OUTPUT, Time(entries + 1, 0), revision, 0, 0)
            entries, size = entries + 1, size + len(content)
        if grow is not None:
            change = Delta.keeping(keep or 0, grow)
        if change is not None:
            assert tail is not None
            revision += 1
            part = TailPart(revision, change, 0)
            part_bytes = tail.part_bytes + max(1, change.text_bytes)
            tail = replace(tail, revision=revision, part_bytes=part_bytes)
        return Commit(
            self.task_id,
            self.fence,
            head.revision,
            LogHead(
                epoch,
                entries,
                revision,
                head.digest,
                size,
                NOW,
                tail,
                total_rows,
                head.evicted,
                head.generation,
            ),
            rows,
            part,
            drops_parts=withdraw or bool(rows),
            events=events,
        )

    async def write(self, commit: Commit) -> Outcome:
        """Commit, and continue from there if that succeeded."""
        outcome = (await self.store.writes.commit([commit]))[self.task_id]
        if outcome is Outcome.COMMITTED:
            self.head = commit.head
        return outcome

    async def page(self, query: PageQuery = PageQuery()) -> LogPage:  # noqa: B008 (frozen)
        """Read a page."""
        return await self.store.reads.page(TaskId(self.task_id), query)

    async def contents(self, query: PageQuery = PageQuery()) -> list[str]:  # noqa: B008 (frozen)
        """Read the contents of a page."""
        return [entry.content for entry in decoded(await self.page(query))]


def entry_row(
    epoch: int,
    ordinal: int,
    revision: int,
    content: bytes,
    *,
    id_: int | None = None,
    type_: EntryType = EntryType.OUTPUT,
) -> EntryRow:
    """Make an entry's row. Its id is its ordinal."""
    id_ = ordinal if id_ is None else id_
    head = encode_head(id_, type_, Time(ordinal + 1, 0), revision, 0, len(content))
    return EntryRow(epoch, ordinal, id_, revision, head, content, type_)


def entry_record(task_id: UUID, row: EntryRow) -> tuple[object, ...]:
    """Return the row's values in the order of ENTRY_COLUMNS."""
    return task_id, row.epoch, row.ordinal, row.id, row.revision, row.head, row.content, row.type


async def waits_for_a_lock(sql: Connection) -> bool:
    """Whether anyone in this database waits for a lock now."""
    # Within a transaction Postgres would return its first snapshot again.
    await sql.execute("SELECT pg_stat_clear_snapshot()")
    waiting: bool = await sql.fetchval(
        "SELECT EXISTS (SELECT FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock')"
    )
    return waiting
