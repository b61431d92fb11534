"""One connected agent stream: what it has appended, what is committed of it, and its syncs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from uuid import UUID

from tasklogs.log.continuation import Position, StoredTail
from tasklogs.log.digest import content_hash
from tasklogs_server.concurrency.retry_when_busy import once_it_has_time
from tasklogs_server.domain.errors import (
    AgentUnreachable,
    ProtocolViolation,
    SessionLost,
    SessionSuperseded,
    TaskAppFailed,
    TaskLogsError,
)
from tasklogs_server.ingest.draft import Draft
from tasklogs_server.ingest.group_commit import Committer
from tasklogs_server.ingest.log_limits import Room
from tasklogs_server.ingest.messages import Append, Hello, Limits, Welcome
from tasklogs_server.ingest.outbox import Outbox
from tasklogs_server.limits.ingest_budget import IngestBudget
from tasklogs_server.store.records import Commit, EntryRow, LogHead
from tasklogs_server.store.sessions import Opening
from tasklogs_server.telemetry.observer import Observer


def position_of(head: LogHead, tail_content: bytes | None) -> Position:
    """Where the store stands, as `Welcome` tells it."""
    tail = head.tail
    stored = None
    if tail is not None and tail_content is not None:
        stored = StoredTail(
            id=tail.id,
            type=tail.type,
            time=tail.time,
            content_bytes=len(tail_content),
            content_sha256=content_hash(tail_content),
            dropped_bytes=tail.dropped_bytes,
        )
    return Position(head.epoch, head.entries, head.digest, stored)


class SyncUnderWay:
    """A sync that was asked for: done when the appends before its answer are committed."""

    def __init__(self, began_at: datetime) -> None:
        self.began_at = began_at
        self.rests_on: int | None = None
        """The sequence number of the last append before the answer."""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, error: TaskLogsError) -> None:
        """Let whoever waits know that it will never be done."""
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # whoever waited may have left


class Session:
    """The holder of a task's fence. Appends go in one by one; acks come out by the outbox."""

    def __init__(
        self,
        task_id: UUID,
        hello: Hello,
        opening: Opening,
        *,
        limits: Limits,
        committer: Committer,
        budget: IngestBudget,
        room: Room,
        load_tail: Callable[[UUID], Awaitable[bytes]],
        confirm: Callable[[Session, datetime, bool], None],
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        observer: Observer,
    ) -> None:
        self._observer = observer
        self.task_id = task_id
        self.hello = hello
        self.fence = opening.fence
        self.standalone = opening.standalone
        self.outbox = Outbox()
        self.welcome = Welcome(
            session=opening.fence,
            limits=limits,
            revision=opening.head.revision,
            position=position_of(opening.head, opening.tail_content),
        )
        self.synced_at: datetime | None = None
        """When the last completed sync of this session began."""
        self.synced_monotonic: float | None = None
        """The same, for its age."""
        self.reason_of_fence: Exception | None = None
        """Why the fence is about to be raised, where it is not for a later session."""
        self._limits = limits
        self._committer = committer
        self._budget = budget
        self._room_in_log = room
        self._evicted = opening.head.evicted
        self._load_tail = load_tail
        self._confirm = confirm
        self._clock = clock
        # Ages are told by this one: a wall clock that is set back would make them young again.
        self._monotonic = monotonic
        # Without the tail's content: an idle stream must not hold up to 1 MiB.
        self._draft = Draft(opening.head, last_sealed_id=opening.last_sealed_id)
        self._received = 0
        self._acked = 0
        self._in_flight: tuple[int, int] | None = None
        """Sequence number and bytes of the commit that is under way."""
        self._pending_bytes = 0
        self._received_at: datetime | None = None
        self._appended_at = monotonic()
        self._shown_at: float | None = None
        """When the agent saw the oldest pending change, by this process's monotonic clock."""
        self._in_flight_shown_at: float | None = None
        self._syncs: dict[int, SyncUnderWay] = {}
        self._last_sync = 0
        self._room = asyncio.Event()
        self._room.set()
        self._error: Exception | None = None
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()

    @property
    def is_open(self) -> bool:
        """Whether the session may still write."""
        return self._error is None

    async def append(
        self, append: Append, *, may_open_epoch: Callable[[], Awaitable[None]]
    ) -> None:
        """Take one append. It returns when there is room for the next: that is the backpressure.

        Raises ProtocolViolation, what `may_open_epoch` raises, LogFull, and whatever ended the
        session.
        """
        self._check_open()
        if append.sequence != self._received + 1:
            raise ProtocolViolation(f"append {append.sequence} follows append {self._received}")
        received_at = self._clock()
        if append.open_epoch:
            await self.flush()  # the limit counts what is committed
            await may_open_epoch()
        await self._make_room(append)
        size_bytes = append.size_bytes
        await self._budget.acquire(size_bytes)
        try:
            # Last, nothing is awaited before the append is applied: idle tails are given up.
            if self._draft.lacks_tail:
                content = await once_it_has_time(lambda: self._load_tail(self.task_id))
                self._draft.supply_tail(content)
            self._check_open()
        except BaseException:
            self._budget.release(size_bytes)
            raise
        self._pending_bytes += size_bytes
        self._draft.apply(append)
        self._received = append.sequence
        self._received_at = received_at
        self._appended_at = self._monotonic()
        if self._shown_at is None:
            self._shown_at = self._monotonic() - append.waited_seconds
        self._idle.clear()
        self._committer.submit(self)
        if self._unacknowledged_bytes > self._limits.window_bytes:
            self._room.clear()
            await self._room.wait()
        self._check_open()

    async def sync(self, timeout: timedelta) -> datetime:
        """Bring the store up to date with the task app; return when that began.

        Raises TaskAppFailed, and AgentUnreachable where the session ends meanwhile.
        """
        self._check_open()
        self._last_sync += 1
        sync_id = self._last_sync
        under_way = self._syncs[sync_id] = SyncUnderWay(self._clock())
        began = self._monotonic()
        try:
            with self._observer.syncing() as traceparent:
                self.outbox.sync(sync_id, traceparent)
                async with asyncio.timeout(timeout.total_seconds()):
                    await under_way.done
        except TimeoutError:
            reason = f"the task app did not answer within {timeout.total_seconds():g} s"
            raise TaskAppFailed(reason) from None
        finally:
            del self._syncs[sync_id]
            self.outbox.forget_sync(sync_id)
        self.synced_at = max(self.synced_at or under_way.began_at, under_way.began_at)
        self.synced_monotonic = max(self.synced_monotonic or began, began)
        self._confirm(self, under_way.began_at, False)
        return under_way.began_at

    def sync_done(self, sync_id: int) -> None:
        """The agent has answered a sync; all its appends came before."""
        under_way = self._syncs.get(sync_id)
        if under_way is not None:
            under_way.rests_on = self._received
            self._complete_syncs()

    def sync_failed(self, sync_id: int, reason: str) -> None:
        """The agent could not read the task app."""
        under_way = self._syncs.get(sync_id)
        if under_way is not None:
            under_way.fail(TaskAppFailed(reason))

    async def flush(self) -> None:
        """Wait until all that was received is committed. Raises whatever ended the session."""
        await self._idle.wait()
        self._check_open()

    async def fold(self) -> tuple[int, EntryRow] | None:
        """Return revision and row that make one of the tail's parts, where there are any.

        Only after a `flush`.
        """
        if self._draft.has_stored_parts and self._draft.lacks_tail:
            self._draft.supply_tail(await self._load_tail(self.task_id))
        return self._draft.fold()

    def end(self, error: Exception | None) -> None:
        """End the session: nothing more is taken or acknowledged. The first reason counts."""
        if self._error is not None:
            return
        self._error = error or SessionLost()
        self._committer.withdraw(self)
        # What is in flight is still held by the committer: it is given back when that is settled.
        self._budget.release(self._pending_bytes)
        self._pending_bytes = 0
        for under_way in self._syncs.values():
            under_way.fail(AgentUnreachable(timedelta(0), timedelta(seconds=1)))
        self._room.set()
        self._idle.set()
        self.outbox.close(error)

    def release_tail(self, *, idle_for: timedelta) -> None:
        """Give up the tail's content where nothing was appended for so long."""
        if (
            self._idle.is_set()
            and self._monotonic() - self._appended_at >= idle_for.total_seconds()
        ):
            self._draft.release_tail()

    @property
    def tail_bytes(self) -> int:
        """What the session holds of the tail."""
        return self._draft.tail_bytes

    # What the committer calls.

    def take(self) -> Commit | None:
        """Hand over what has gathered."""
        if self._in_flight is not None or self._error is not None:
            return None
        commit = self._draft.take(self.task_id, self.fence, self._received_at)
        self._in_flight = (self._received, self._pending_bytes)
        self._pending_bytes = 0
        self._in_flight_shown_at, self._shown_at = self._shown_at, None
        if commit is None:
            self._settle()
        return commit

    def committed(self, commit: Commit) -> None:
        """Acknowledge: only now, after the commit."""
        if self._error is not None:
            self._forget_in_flight()
            return
        if commit.head.snapshot_at is not None:
            self._confirm(self, commit.head.snapshot_at, True)
        if self._in_flight_shown_at is not None:
            self._observer.stored(self._monotonic() - self._in_flight_shown_at)
        self._settle()

    def lost(self, error: Exception) -> None:
        """The store refused: whoever builds on this session's view has to look again."""
        self._forget_in_flight()
        is_fenced = isinstance(error, SessionSuperseded)
        self.end(self.reason_of_fence or error if is_fenced else error)

    def undecided(self) -> None:
        """Whatever became of the commit: the agent starts again from Welcome, at once."""
        self.lost(SessionLost())

    def _forget_in_flight(self) -> int:
        if self._in_flight is None:
            return self._acked
        (sequence, size_bytes), self._in_flight = self._in_flight, None
        self._budget.release(size_bytes)
        return sequence

    def _settle(self) -> None:
        sequence = self._acked = self._forget_in_flight()
        self.outbox.ack(sequence)
        self._complete_syncs()
        if self._unacknowledged_bytes <= self._limits.window_bytes:
            self._room.set()
        if self._received > self._acked:
            self._committer.submit(self)
        else:
            self._idle.set()

    def _complete_syncs(self) -> None:
        for under_way in self._syncs.values():
            rests_on = under_way.rests_on
            if rests_on is not None and rests_on <= self._acked and not under_way.done.done():
                under_way.done.set_result(None)

    @property
    def _unacknowledged_bytes(self) -> int:
        return self._pending_bytes + (self._in_flight[1] if self._in_flight else 0)

    async def _make_room(self, append: Append) -> None:
        rows, bytes_ = append.most_rows, append.content_bytes
        held_rows = self._draft.total_rows - self._evicted.rows
        held_bytes = self._draft.total_bytes - self._evicted.bytes
        if not self._room_in_log.fits(held_rows + rows, held_bytes + bytes_):
            await self.flush()  # what is evicted is counted in the store
            self._evicted = await self._room_in_log.make(self.task_id, rows, bytes_)

    def _check_open(self) -> None:
        if self._error is not None:
            raise self._error
