"""Sessions: the fence of each task, and who holds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from tasklogs.log.entry import Entry
from tasklogs_server.domain.errors import SessionOpen, TaskNotFound
from tasklogs_server.domain.reports import expire_lease
from tasklogs_server.domain.status import Facts
from tasklogs_server.store.connections import Connection, Connections
from tasklogs_server.store.log_reads import read_tail
from tasklogs_server.store.many_tasks import each_or_alone
from tasklogs_server.store.records import LogHead
from tasklogs_server.store.task_rows import (
    HEAD_COLUMNS,
    SESSION_COLUMNS,
    Standing,
    head_of,
)
from tasklogs_server.store.tasks import change_facts
from tasklogs_server.wire.entries import encode_head

# The task's row is taken before its head, here and everywhere.
_LOCK_TASK = f"""
    SELECT t.standalone, t.start_build, {SESSION_COLUMNS}
      FROM tasks t
     WHERE t.task_id = $4 AND t.deleted_at IS NULL FOR UPDATE"""

_RAISE_FENCE = f"""
    UPDATE log_heads h SET fence = greatest(fence, $2) + 1 WHERE task_id = $1
    RETURNING fence, {HEAD_COLUMNS}"""

_LAST_ID = "SELECT id FROM log_entries WHERE task_id = $1 AND epoch = $2 AND ordinal = $3"

_HOLD = """
    UPDATE tasks SET session_process = $2, session_fence = $3, session_lost_at = NULL
     WHERE task_id = $1"""

_LOST = """
    UPDATE tasks SET session_lost_at = clock_timestamp()
     WHERE task_id = $1 AND session_fence = $2 AND session_process = $3
       AND session_lost_at IS NULL"""

_EPOCHS_SINCE = """
    SELECT count(*) FROM log_events
     WHERE task_id = $1 AND id IS NULL AND committed_at > clock_timestamp() - interval '1 hour'"""

# A row for each entry that is held, whether or not its content is the same.
_COMPARED = """
    SELECT e.ordinal, e.revision, e.head, e.content = u.content AS is_same
      FROM unnest($3::int[], $4::bytea[]) AS u (ordinal, content)
      JOIN log_entries e ON e.task_id = $1 AND e.epoch = $2 AND e.ordinal = u.ordinal"""


@dataclass(frozen=True, slots=True)
class Opening:
    """A task at the moment a session took its fence.

    `tail_content` is None where nothing may change; then `last_sealed_id` is the last entry's, -1
    without entries.
    """

    fence: int
    head: LogHead
    tail_content: bytes | None
    standalone: bool
    last_sealed_id: int = -1


class SessionStore:
    """The rows that sessions change."""

    def __init__(self, connections: Connections, standing: Standing) -> None:
        self._connections = connections
        self._standing = standing

    async def open_session(
        self,
        task_id: UUID,
        *,
        admit: Callable[[int | None], None],
        connect: Callable[[Facts], Facts] | None,
        above: int = 0,
        raised: Callable[[int], None] = lambda _: None,
    ) -> Opening:
        """Raise the fence and read where the store stands, in one transaction.

        `admit` is given the latest START build and raises where the session may not begin;
        `connect` changes a standalone task's facts. `raised` is told the fence before the commit:
        where that fails, perhaps it holds and perhaps not, and who asks again asks for one `above`
        it. Raises TaskNotFound.
        """
        async with self._connections.use() as connection, connection.transaction():
            row = await connection.fetchrow(_LOCK_TASK, *self._standing, task_id)
            if row is None:
                raise TaskNotFound(str(task_id))
            admit(row["start_build"])
            if row["standalone"] and connect is not None:
                lease_over = row["lease_over"]
                await change_facts(
                    connection,
                    task_id,
                    lambda facts: connect(expire_lease(facts) if lease_over else facts),
                )
            opening = await self._raise_fence(
                connection, task_id, standalone=row["standalone"], above=above
            )
            await connection.execute(_HOLD, task_id, self._standing.process_id, opening.fence)
            raised(opening.fence)
            return opening

    async def open_upload(self, task_id: UUID) -> Opening:
        """Raise the fence for one upload.

        Raises SessionOpen where a session is open, TaskNotFound.
        """
        async with self._connections.use() as connection, connection.transaction():
            row = await connection.fetchrow(_LOCK_TASK, *self._standing, task_id)
            if row is None:
                raise TaskNotFound(str(task_id))
            if row["agent_connected"]:
                raise SessionOpen
            return await self._raise_fence(connection, task_id, standalone=row["standalone"])

    async def lose_sessions(self, lost: Sequence[tuple[UUID, int]]) -> None:
        """Note for each task and fence of this process that its stream is gone.

        Leases run from here. What cannot be noted of one task is logged; the others' is.
        """
        process_id = self._standing.process_id
        noted = [(task_id, fence, process_id) for task_id, fence in sorted(lost)]
        await each_or_alone(self._connections, _LOST, noted)

    async def epochs_in_the_last_hour(self, task_id: UUID) -> int:
        """Count the epochs that were opened in the last hour."""
        async with self._connections.use() as connection:
            return int(await connection.fetchval(_EPOCHS_SINCE, task_id))

    async def tail_content(self, task_id: UUID) -> bytes:
        """Read the content of the tail, parts folded in."""
        async with self._connections.use() as connection:
            return await read_tail(connection, task_id)

    async def is_prefix(self, task_id: UUID, epoch: int, entries: Sequence[Entry]) -> bool:
        """Whether these are an epoch's first sealed entries, times included.

        A conversation that starts over greets with the same words, but later. Entries that were
        evicted are taken for the same where those after them are; False where none is held.
        """
        async with self._connections.use() as connection:
            rows = await connection.fetch(
                _COMPARED,
                task_id,
                epoch,
                list(range(len(entries))),
                [one.content for one in entries],
            )
        # What is evicted is a prefix, so the last of these is held if any is.
        return bool(rows) and all(
            row["is_same"]
            and row["head"] == _head_of_entry(entries[row["ordinal"]], row["revision"])
            for row in rows
        )

    async def _raise_fence(
        self, connection: Connection, task_id: UUID, *, standalone: bool, above: int = 0
    ) -> Opening:
        row = await connection.fetchrow(_RAISE_FENCE, task_id, above)
        if row is None:
            raise TaskNotFound(str(task_id))
        head = head_of(row)
        if head.tail is not None:
            content = await read_tail(connection, task_id)
            return Opening(row["fence"], head, content, standalone)
        last = await connection.fetchval(_LAST_ID, task_id, head.epoch, head.entries - 1)
        return Opening(row["fence"], head, None, standalone, -1 if last is None else last)


def _head_of_entry(entry: Entry, revision: int) -> bytes:
    return encode_head(
        entry.id, entry.type, entry.time, revision, entry.dropped_bytes, len(entry.content)
    )
