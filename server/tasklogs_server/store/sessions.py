"""Sessions in the store: the fence of each task, and the process that holds it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog

from tasklogs.log.entry import Entry
from tasklogs_server.concurrency.slices import slices
from tasklogs_server.domain.errors import SessionOpen, TaskNotFound
from tasklogs_server.domain.reports import expire_lease
from tasklogs_server.domain.status import Facts
from tasklogs_server.store.connections import Connection, Connections
from tasklogs_server.store.errors import concerns_one_task, is_row_held
from tasklogs_server.store.log_reads import read_tail
from tasklogs_server.store.records import GENERATION_GAP, LogHead
from tasklogs_server.store.session_audit import AuditedTask, HeldSession, audit, audit_sharded
from tasklogs_server.store.task_rows import (
    HEAD_COLUMNS,
    SESSION_COLUMNS,
    LeaseTerms,
    head_of,
)
from tasklogs_server.store.task_transactions import TaskTransactions
from tasklogs_server.store.tasks import change_facts
from tasklogs_server.wire.entries import encode_head

_REFUSED_PAUSE_SECONDS = 10.0
_REFUSED_LONGEST_PAUSE_SECONDS = 300.0

_log = structlog.get_logger(__name__)

# Every transaction locks the task's row before its head.
_LOCK_TASK = f"""
    SELECT t.standalone, t.start_build, {SESSION_COLUMNS}
      FROM tasks t
     WHERE t.task_id = $4 AND t.deleted_at IS NULL FOR UPDATE"""

# By how many gaps the numbers jump in another generation. A standby that is promoted may never have
# had a generation between the log's and its own. The first writer of that one jumped, too, from a
# revision that is not known here. So there is one gap for each timeline, and at most 100.
_TIMELINE = "('x' || split_part({}, '/', 2))::bit(32)::int"
_TIMELINES = f"{_TIMELINE.format('$2')} - {_TIMELINE.format('generation')}"
_GAPS = f"""
           CASE WHEN generation = $2 THEN 0
                WHEN split_part(generation, '/', 1) <> split_part($2, '/', 1) THEN 1
                ELSE least(greatest({_TIMELINES}, 1), 100)
           END"""

# A log whose last writer knew another generation may lack changes that were acknowledged, and
# fences that were given out. So both numbers jump, which leaves the lost ones unused, and
# `lost_after` gets the gaps. Where two gaps meet, a third one covers the revision between them.
# Gaps below the last evicted revision are dropped: a cursor there has expired anyway. A gap has 8
# bytes. If there are ever more than 1,000, the oldest go.
_RAISE_FENCE = f"""
    UPDATE log_heads h
       SET fence = fence + greatest({GENERATION_GAP} * {_GAPS}, 1),
           generation = $2,
           revision = revision + {GENERATION_GAP} * {_GAPS},
           lost_after = CASE WHEN generation = $2 THEN lost_after ELSE ARRAY(
               SELECT kept.last
                 FROM (SELECT last
                         FROM unnest(h.lost_after || ARRAY(
                             SELECT h.revision + number * {GENERATION_GAP} - below
                               FROM generate_series(0, {_GAPS} - 1) AS gap (number)
                              CROSS JOIN generate_series(0, least(number, 1)) AS edge (below)
                         )) AS gap (last)
                        WHERE last + {GENERATION_GAP} > h.evicted_revision
                        ORDER BY last DESC LIMIT 1000) kept
                ORDER BY kept.last) END
     WHERE task_id = $1
    RETURNING fence, {HEAD_COLUMNS}"""

_LAST_ID = "SELECT id FROM log_entries WHERE task_id = $1 AND epoch = $2 AND ordinal = $3"

_HOLD = """
    UPDATE tasks
       SET session_process = $2, session_fence = $3, session_serial = $4, session_lost_at = NULL
     WHERE task_id = $1"""

# The sessions that the store records as open in this process, up to serial $2 and without $3.
_OPEN_SERIALS = """
    SELECT session_serial FROM tasks
     WHERE session_process = $1 AND session_lost_at IS NULL AND session_serial BETWEEN 1 AND $2
       AND session_serial NOT IN (SELECT unnest($3::bigint[]))"""

_HELD = """
    SELECT task_id, session_process, session_serial FROM tasks
     WHERE session_process = $1 AND session_lost_at IS NULL AND session_serial = ANY ($2::bigint[])
     ORDER BY task_id"""

# The serial, if another transaction has locked the row. SKIP LOCKED: it does not delay the other
# losses.
_LOSE = """
    WITH unlocked AS MATERIALIZED (
        SELECT task_id FROM tasks
         WHERE task_id = $1 AND session_process = $2 AND session_serial = $3
           AND session_lost_at IS NULL
           FOR UPDATE SKIP LOCKED
    ), lost AS (
        UPDATE tasks t SET session_lost_at = statement_timestamp()
          FROM unlocked WHERE t.task_id = $1 AND t.task_id = unlocked.task_id
        RETURNING t.task_id
    )
    SELECT session_serial FROM tasks
     WHERE task_id = $1 AND session_process = $2 AND session_serial = $3
       AND session_lost_at IS NULL AND NOT EXISTS (SELECT 1 FROM unlocked)"""

_TASK_OF = "SELECT task_id FROM tasks WHERE session_process = $1 AND session_serial = $2"

_PROCESS_OF = """
    SELECT session_process, session_fence FROM tasks
     WHERE task_id = $1 AND session_process IS NOT NULL AND session_lost_at IS NULL
       AND deleted_at IS NULL"""

_EPOCHS_SINCE = """
    SELECT count(*) FROM log_events
     WHERE task_id = $1 AND id IS NULL AND committed_at > clock_timestamp() - interval '1 hour'"""

# One row for each of these entries that is stored, and whether its content is the same.
_COMPARED = """
    SELECT e.ordinal, e.revision, e.head, e.content = u.content AS is_same
      FROM unnest($3::int[], $4::bytea[]) AS u (ordinal, content)
      JOIN log_entries e ON e.task_id = $1 AND e.epoch = $2 AND e.ordinal = u.ordinal"""


@dataclass(frozen=True, slots=True)
class Opening:
    """The state of a task when a session raised its fence.

    `tail_content` is None if there is no tail. Then `last_sealed_id` is the last entry's id, or -1
    without entries. `tail_parts`: how many parts are stored of the tail, in addition to its row.
    """

    fence: int
    head: LogHead
    tail_content: bytes | None
    standalone: bool
    last_sealed_id: int = -1
    tail_parts: int = 0


@dataclass(frozen=True, slots=True)
class _Refused:
    """When a loss that Postgres refused is tried again, by the monotonic clock in seconds."""

    again_at: float
    pause_seconds: float


class SessionStore:
    """Reads and writes the rows of sessions."""

    def __init__(
        self, connections: Connections, transactions: TaskTransactions, lease_terms: LeaseTerms
    ) -> None:
        self._connections = connections
        self._transactions = transactions
        self._lease_terms = lease_terms
        self._clock: Callable[[], float] = time.monotonic
        self._refused: dict[int, _Refused] = {}
        """Serials whose rows Postgres refused to change."""

    async def open_session(
        self,
        task_id: UUID,
        *,
        serial: int = 0,
        admit: Callable[[int | None], None],
        connect: Callable[[Facts], Facts] | None,
    ) -> Opening:
        """Raise the fence and read the state of the log, in one transaction.

        `serial` names the session in `lose_sessions`: each handshake of this process needs a higher
        one, from 1. `lose_sessions` never finds a session with serial 0. `admit` is called with the
        latest START build, and raises if the session may not begin. `connect` changes a standalone
        task's facts. It waits only a moment for rows that another transaction holds, and then
        raises an error for `is_row_held`. Raises TaskNotFound.
        """

        async def open_(connection: Connection) -> Opening:
            row = await connection.fetchrow(_LOCK_TASK, *self._lease_terms, task_id)
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
            opening = await self._raise_fence(connection, task_id, standalone=row["standalone"])
            await connection.execute(
                _HOLD, task_id, self._lease_terms.process_id, opening.fence, serial
            )
            return opening

        return await self._transactions.attempt(task_id, open_)

    async def open_upload(self, task_id: UUID) -> Opening:
        """Raise the fence for one upload.

        Raises SessionOpen if a session is open, TaskNotFound.
        """

        async def open_(connection: Connection) -> Opening:
            row = await connection.fetchrow(_LOCK_TASK, *self._lease_terms, task_id)
            if row is None:
                raise TaskNotFound(str(task_id))
            if row["agent_connected"]:
                raise SessionOpen
            return await self._raise_fence(connection, task_id, standalone=row["standalone"])

        return await self._transactions.run(task_id, open_)

    async def open_serials(self, last: int, *, but_for: Collection[int]) -> Sequence[int]:
        """Read which sessions the store records as open in this process.

        Only serials up to `last`, not in `but_for`, and not those whose rows Postgres refused to
        change a moment ago. Raises StoreUnavailable.
        """
        now = self._clock()
        excepted = [*but_for, *(n for n, one in self._refused.items() if one.again_at > now)]
        async with self._connections.use() as connection:
            rows = await connection.fetch(
                _OPEN_SERIALS, self._lease_terms.process_id, last, excepted
            )
        serials = [row["session_serial"] for row in rows]
        # A later session holds the task, or the task is gone.
        for over in self._refused.keys() - {*excepted, *serials}:
            del self._refused[over]
        return serials

    async def lose_sessions(self, serials: Collection[int]) -> Collection[int]:
        """Record that the streams of these sessions of this process ended. Leases run from now.

        Returns the sessions whose rows another transaction has locked. Nothing is recorded for
        these, so the caller tries again. If Postgres refuses to change a row, this is logged once,
        the other losses are recorded, and `open_serials` returns it again after a while. Raises
        StoreUnavailable.
        """
        try:
            locked_rows = await self._lose(serials)
        except Exception as error:
            # Rows that are held are skipped: a lock that is waited for is the table's.
            if not concerns_one_task(error) or is_row_held(error):
                raise
        else:
            for serial in serials:
                self._refused.pop(serial, None)
            return locked_rows
        locked: set[int] = set()
        for serial in serials:
            try:
                locked.update(await self._lose([serial]))
            except Exception as error:
                if not concerns_one_task(error) or is_row_held(error):
                    raise
                await self._note_refused(serial, error)
            else:
                self._refused.pop(serial, None)
        return locked

    async def audit(self, held: Sequence[HeldSession]) -> Sequence[AuditedTask]:
        """Return the tasks of those sessions that ended elsewhere, or whose revision is not stored.

        Raises StoreUnavailable.
        """
        try:
            async with self._connections.use() as connection:
                read = audit_sharded if self._connections.sharded else audit
                return await read(connection, held)
        except Exception as error:
            if not concerns_one_task(error):
                raise
            if len(held) == 1:
                task = str(held[0].task_id)
                _log.error("store.row_refused", task=task, error=type(error).__name__)
                return ()
        half = len(held) // 2
        return (*await self.audit(held[:half]), *await self.audit(held[half:]))

    async def _note_refused(self, serial: int, error: Exception) -> None:
        before = self._refused.get(serial)
        pause_seconds = _REFUSED_PAUSE_SECONDS
        if before is not None:
            pause_seconds = min(before.pause_seconds * 2, _REFUSED_LONGEST_PAUSE_SECONDS)
        self._refused[serial] = _Refused(self._clock() + pause_seconds, pause_seconds)
        if before is None:
            task = str(await self._task_of(serial))
            _log.error("store.row_refused", task=task, error=type(error).__name__)

    async def _lose(self, serials: Collection[int]) -> Collection[int]:
        async with self._connections.use() as connection:
            held = await connection.fetch(_HELD, self._lease_terms.process_id, list(serials))
            rows = await connection.fetchmany(_LOSE, held) if held else ()
        return {row["session_serial"] for row in rows}

    async def _task_of(self, serial: int) -> UUID | None:
        """Read which task a session holds, for a log line; None if that cannot be read."""
        try:
            async with self._connections.use() as connection:
                task_id: UUID | None = await connection.fetchval(
                    _TASK_OF, self._lease_terms.process_id, serial
                )
                return task_id
        except Exception as error:
            if not concerns_one_task(error):
                raise
            return None

    async def epochs_in_the_last_hour(self, task_id: UUID) -> int:
        """Count the epochs that were opened in the last hour."""
        async with self._connections.use() as connection:
            return int(await connection.fetchval(_EPOCHS_SINCE, task_id))

    async def process_of(self, task_id: UUID) -> tuple[UUID, int] | None:
        """Read which process has the task's session, and its fence. None: none has.

        The process may have died. Raises StoreUnavailable.
        """
        async with self._connections.use() as connection:
            row = await connection.fetchrow(_PROCESS_OF, task_id)
        return None if row is None else (row["session_process"], row["session_fence"])

    async def tail_content(self, task_id: UUID) -> bytes:
        """Read the content of the tail, into which its parts are folded."""
        async with self._connections.use() as connection:
            content, _ = await read_tail(connection, task_id)
            return content

    async def is_prefix(
        self, task_id: UUID, epoch: int, entries: Sequence[Entry], *, generation: str
    ) -> bool:
        """Whether these entries are an epoch's first sealed entries, with the same times.

        Times are compared because a conversation that starts over may begin with the same words,
        but later. Evicted entries count as equal if the stored entries after them are equal. False
        if all of these entries are evicted. Raises StoreUnavailable if the store has not this
        generation.
        """
        any_stored, begin = False, 0
        for part in slices(entries, lambda entry: len(entry.content)):
            async with self._connections.use(generation=generation) as connection:
                rows = await connection.fetch(
                    _COMPARED,
                    task_id,
                    epoch,
                    list(range(begin, begin + len(part))),
                    [one.content for one in part],
                )
            if not all(
                row["is_same"]
                and row["head"] == _head_of_entry(entries[row["ordinal"]], row["revision"])
                for row in rows
            ):
                return False
            any_stored |= bool(rows)
            begin += len(part)
        # Eviction removes a prefix: if any of these entries is stored, the last one is.
        return any_stored

    async def _raise_fence(
        self, connection: Connection, task_id: UUID, *, standalone: bool
    ) -> Opening:
        row = await connection.fetchrow(_RAISE_FENCE, task_id, connection.generation)
        if row is None:
            raise TaskNotFound(str(task_id))
        head = head_of(row)
        if head.tail is not None:
            content, parts = await read_tail(connection, task_id)
            return Opening(row["fence"], head, content, standalone, tail_parts=parts)
        last = await connection.fetchval(_LAST_ID, task_id, head.epoch, head.entries - 1)
        return Opening(row["fence"], head, None, standalone, -1 if last is None else last)


def _head_of_entry(entry: Entry, revision: int) -> bytes:
    return encode_head(
        entry.id,
        entry.type,
        entry.time,
        revision,
        entry.dropped_bytes,
        len(entry.content),
        entry.names,
    )
