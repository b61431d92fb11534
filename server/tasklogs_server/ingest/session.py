"""One connected agent stream: its appends, how many of them are committed, and its syncs."""

from __future__ import annotations

import time
from asyncio import timeout as time_limit
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

from tasklogs.log.append import Append
from tasklogs.log.continuation import Position, StoredTail
from tasklogs.log.digest import content_hash
from tasklogs_server.concurrency.loop_share import LoopShare
from tasklogs_server.concurrency.retry_when_busy import retry_when_busy
from tasklogs_server.domain.errors import (
    AgentUnreachable,
    ProtocolViolation,
    SessionLost,
    SessionSuperseded,
    TaskAppFailed,
)
from tasklogs_server.domain.synced import StoredState, Synced, is_older_build
from tasklogs_server.ingest.draft import Draft
from tasklogs_server.ingest.group_commit import GroupCommit
from tasklogs_server.ingest.log_limits import EpochLimiter, LogLimiter
from tasklogs_server.ingest.messages import Hello, Limits, Welcome, cost_bytes
from tasklogs_server.ingest.outbox import Outbox
from tasklogs_server.ingest.sync_table import SyncTable
from tasklogs_server.ingest.window import Window
from tasklogs_server.ingest.write_behind import WriteBehind
from tasklogs_server.limits.ingest_budget import IngestBudget
from tasklogs_server.store.records import Commit, EntryRow, LogHead
from tasklogs_server.store.sessions import Opening
from tasklogs_server.telemetry.observer import Observer

# To apply this takes a millisecond; to make a commit of a part, and to send it, takes a few. Other
# calls wait meanwhile.
_AT_ONCE_ENTRIES = 150
_AT_ONCE_BYTES = 256 * 1024
_PART_ENTRIES = 1000
_PART_BYTES = 1024 * 1024

_utc_now = partial(datetime.now, UTC)


@dataclass(frozen=True, slots=True)
class SessionResources:
    """What all sessions of a process share.

    `load_tail` reads the content of a task's tail. `clock` returns the times that are stored.
    `monotonic` measures ages in seconds. It is never set back.
    """

    limits: Limits
    group_commit: GroupCommit
    budget: IngestBudget
    log_limiter: LogLimiter
    epoch_limiter: EpochLimiter
    write_behind: WriteBehind
    load_tail: Callable[[UUID], Awaitable[bytes]]
    share: LoopShare = field(default_factory=LoopShare)
    clock: Callable[[], datetime] = _utc_now
    monotonic: Callable[[], float] = time.monotonic
    observer: Observer = field(default_factory=Observer)


def position_of(head: LogHead, tail_content: bytes | None) -> Position:
    """Return the state of the stored log, as `Welcome` sends it."""
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
            names=tail.names,
        )
    return Position(head.epoch, head.entries, head.digest, stored)


class Session:
    """The holder of a task's fence. It receives appends; the outbox has the server's messages.

    `serial` names it among the sessions of this process.
    """

    def __init__(
        self,
        task_id: UUID,
        hello: Hello,
        opening: Opening,
        *,
        serial: int,
        resources: SessionResources,
        token_hash: bytes | None = None,
    ) -> None:
        self.task_id = task_id
        self.hello = hello
        self.serial = serial
        self.fence = opening.fence
        self.generation = opening.head.generation
        self.revision = opening.head.revision
        """The log's revision after the last commit of this session."""
        self.token_hash = token_hash
        """Of the agent token that opened the stream; None: unknown."""
        self.standalone = opening.standalone
        self.welcome = Welcome(
            session=opening.fence,
            limits=resources.limits,
            revision=opening.head.revision,
            position=position_of(opening.head, opening.tail_content),
        )
        self.outbox = Outbox()
        self.syncs = SyncTable()
        self.reason_of_fence: Exception | None = None
        """Why the fence is about to be raised, if the reason is not a later session."""
        self._resources = resources
        self._window = Window(resources.limits.window_bytes, resources.budget)
        # Without the tail's content: an idle stream must not hold up to 1 MiB.
        self._draft = Draft(
            opening.head, tail_parts=opening.tail_parts, last_sealed_id=opening.last_sealed_id
        )
        self._needs_tail = False
        """Whether an append is about to be applied."""
        self._evicted = opening.head.evicted
        self._received_at: datetime | None = None
        self._appended_at = resources.monotonic()
        self._error: Exception | None = None

    @property
    def is_open(self) -> bool:
        """Whether the session may still write."""
        return self._error is None

    def is_outdated_by(self, stored: StoredState) -> bool:
        """Whether the task's rows name a later session, or a newer build than this session's."""
        return stored.fence > self.fence or is_older_build(
            self.hello.build_number, stored.start_build
        )

    @property
    def tail_bytes(self) -> int:
        """How many bytes of the tail's content the session holds."""
        return self._draft.tail_bytes

    @property
    def tail_idle_seconds(self) -> float:
        """How long nothing was appended."""
        return self._resources.monotonic() - self._appended_at

    async def append(self, append: Append) -> None:
        """Receive one append. Returns when the next one fits into the window: the backpressure.

        Raises ProtocolViolation, LimitExceeded if the task opened too many epochs, LogFull, and the
        error that ended the session.
        """
        if self._error is not None:
            raise self._error
        if append.sequence != self._window.received_sequence + 1:
            expected = self._window.received_sequence + 1
            raise ProtocolViolation(f"append {append.sequence} came where {expected} is next")
        # A later time would not be true of it: the task app may have shown more meanwhile.
        received_at = self._resources.clock()
        if append.open_epoch:
            await self.flush()  # the limit counts committed epochs
            await self._resources.epoch_limiter.check(self.task_id)
        *parts, last = append.parts(_PART_ENTRIES, _PART_BYTES)
        for part in parts:
            # Each is a commit of its own: other calls wait while the rows of one are made.
            await self._receive(part, append.sequence - 1, received_at)
            await self.flush()
        await self._receive(last, append.sequence, received_at)

    async def _receive(self, append: Append, sequence: int, received_at: datetime) -> None:
        """Receive a part of an append; after it, `sequence` is the last whole one."""
        resources = self._resources
        if not self._draft.is_empty and self._draft.size_bytes_after(append) > _PART_BYTES:
            await self.flush()
        await self._evict_for(append)
        size_bytes = cost_bytes(append)
        await resources.budget.acquire(size_bytes)
        try:
            await self._apply(append)
        except BaseException:
            resources.budget.release(size_bytes)
            raise
        self._received_at = received_at
        now = self._appended_at = resources.monotonic()
        has_capacity = self._window.received(sequence, size_bytes, now - append.waited_seconds)
        resources.group_commit.submit(self)
        if not has_capacity:
            await self._window.wait_for_capacity()
        if self._error is not None:
            raise self._error

    async def _apply(self, append: Append) -> None:
        self._needs_tail = True
        try:
            if self._draft.lacks_tail:
                await self._supply_tail()
            if len(append.entries) <= _AT_ONCE_ENTRIES and append.content_bytes <= _AT_ONCE_BYTES:
                self._apply_now(append)
            else:
                await self._resources.share.run(lambda: self._apply_now(append))
        finally:
            self._needs_tail = False

    def _apply_now(self, append: Append) -> None:
        if self._error is not None:
            raise self._error
        self._draft.apply(append)

    async def _supply_tail(self) -> None:
        load_tail = self._resources.load_tail
        self._draft.supply_tail(await retry_when_busy(lambda: load_tail(self.task_id)))

    async def _evict_for(self, append: Append) -> None:
        rows, bytes_ = append.most_rows, append.content_bytes
        held_rows = self._draft.total_rows - self._evicted.rows
        held_bytes = self._draft.total_bytes - self._evicted.bytes
        log_limiter = self._resources.log_limiter
        if not log_limiter.fits(held_rows + rows, held_bytes + bytes_):
            await self.flush()  # an eviction counts stored rows
            self._evicted = await log_limiter.evict_for(self.task_id, rows, bytes_)

    async def sync(self, timeout: timedelta) -> Synced:
        """Bring the store up to date with the task app. Return what the sync rests on.

        Raises TaskAppFailed, and AgentUnreachable if the session ends meanwhile.
        """
        if self._error is not None:
            raise self._error
        began_at, began = self._resources.clock(), self._resources.monotonic()
        under_way = self.syncs.begin()
        try:
            with self._resources.observer.syncing() as traceparent:
                self.outbox.sync(under_way.id, traceparent)
                async with time_limit(timeout.total_seconds()):
                    await under_way.done
        except TimeoutError:
            reason = f"the task app did not answer within {timeout.total_seconds():g} s"
            raise TaskAppFailed(reason) from None
        finally:
            self.syncs.forget(under_way.id)
            self.outbox.forget_sync(under_way.id)
        synced = Synced(began_at, self.fence, self.revision, self.hello.build_number)
        self.syncs.completed(synced, began)
        self._confirm(began_at, is_persisted=False)
        return synced

    def sync_done(self, sync_id: int) -> None:
        """Note the agent's answer to a sync. The appends that it depends on came before it."""
        window = self._window
        self.syncs.answered(sync_id, rests_on=window.received_sequence, acked=window.acked_sequence)

    def sync_failed(self, sync_id: int, reason: str) -> None:
        """Note that the agent could not read the task app."""
        self.syncs.failed(sync_id, TaskAppFailed(reason))

    async def flush(self) -> None:
        """Wait until all received appends are committed. Raises what ended the session."""
        await self._window.wait_until_idle()
        if self._error is not None:
            raise self._error

    async def fold(self) -> tuple[int, EntryRow] | None:
        """Return the revision, and the tail with its parts as one row; None without parts.

        Call it only after `flush`.
        """
        if self._draft.has_stored_parts and self._draft.lacks_tail:
            self._draft.supply_tail(await self._resources.load_tail(self.task_id))
        return self._draft.fold()

    def end(self, error: Exception | None) -> None:
        """End the session: nothing more is received or acknowledged. The first reason counts."""
        if self._error is not None:
            return
        self._error = error or SessionLost()
        self._resources.group_commit.withdraw(self)
        self._window.close()
        self.syncs.fail_all(AgentUnreachable(timedelta(0), timedelta(seconds=1)))
        self.outbox.close(error)

    def release_tail(self) -> None:
        """Release the tail's content if everything that was appended is committed."""
        if self._window.is_idle and not self._needs_tail:
            self._draft.release_tail()

    # The group commit calls these: a session is a Writer.

    @property
    def pending_bytes(self) -> int:
        """Bytes of content and text that were received and are in no commit."""
        return self._draft.size_bytes

    def next_commit(self) -> Commit | None:
        """Return a commit with everything that was received."""
        if self._window.in_flight is not None or self._error is not None:
            return None
        commit = self._draft.next_commit(self.task_id, self.fence, self._received_at)
        self._window.handed_over()
        if commit is None:
            self._acknowledge()
        return commit

    def committed(self, commit: Commit) -> None:
        """Acknowledge the appends. This comes only after their commit."""
        if self._error is not None:
            self._window.lost()
            return
        self.revision = commit.head.revision
        if commit.head.snapshot_at is not None:
            self._confirm(commit.head.snapshot_at, is_persisted=True)
        seen_at = self._acknowledge()
        if seen_at is not None:
            self._resources.observer.stored(self._resources.monotonic() - seen_at)

    def lost(self, error: Exception) -> None:
        """End the session: the store refused the commit, so the agent must connect again."""
        self._window.lost()
        is_fenced = isinstance(error, SessionSuperseded)
        self.end(self.reason_of_fence or error if is_fenced else error)

    def undecided(self) -> None:
        """End the session: it is unknown whether the commit is durable."""
        self.lost(SessionLost())

    def _confirm(self, at: datetime, *, is_persisted: bool) -> None:
        self._resources.write_behind.confirm(
            self.task_id,
            self.generation,
            self.fence,
            at,
            is_persisted=is_persisted,
            revision=self.revision,
        )

    def _acknowledge(self) -> float | None:
        window = self._window
        seen_at = window.committed()
        self.outbox.ack(window.acked_sequence)
        if self.syncs.under_way:
            self.syncs.acked(window.acked_sequence)
        if window.received_sequence > window.acked_sequence:
            self._resources.group_commit.submit(self)
        return seen_at
