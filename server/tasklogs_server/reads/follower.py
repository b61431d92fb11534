"""Follows of a log: one stream across pauses, resumes, new epochs and restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from tasklogs_server.bus.interface import Bus, PeerEvent
from tasklogs_server.bus.notes import Deleted, HeardNote, Moved, Note
from tasklogs_server.concurrency.singleflight import Singleflight
from tasklogs_server.concurrency.wake import Wake
from tasklogs_server.domain.errors import (
    CursorExpired,
    FieldViolation,
    InvalidFields,
    ServerDraining,
    StoreUnavailable,
    TaskLogsError,
    TaskNotFound,
)
from tasklogs_server.domain.names import TaskId
from tasklogs_server.domain.read_plan import ReadPlan, plan_read
from tasklogs_server.domain.status import StatusDetail, derive
from tasklogs_server.limits.tail_budget import TailBudget
from tasklogs_server.reads.feed import Feed, Message, Step, expired, messages_of
from tasklogs_server.reads.follow_encoding import encode_event
from tasklogs_server.reads.follow_events import (
    CaughtUp,
    FollowEvent,
    Progress,
    StatusChanged,
    TailSent,
)
from tasklogs_server.reads.follow_query import FollowQuery
from tasklogs_server.reads.paced_wakes import PacedWakes
from tasklogs_server.reads.reader import Sync, SyncRequest
from tasklogs_server.reads.send_budget import SendBudget, Unlimited
from tasklogs_server.reads.silence import Silence
from tasklogs_server.reads.tail_fold import TailFold
from tasklogs_server.reads.tokens import Cursor
from tasklogs_server.store.errors import RETRY_AFTER
from tasklogs_server.store.generations import Generations
from tasklogs_server.store.log_changes import EntriesChanged, LogChanges
from tasklogs_server.store.records import Task
from tasklogs_server.telemetry.calls import concerns

_PROGRESS_AFTER = timedelta(seconds=15)
_SYNC_RETRY_SECONDS = 1.0
_STORE_RETRY_SECONDS = 0.5
# Held while a follow reads the store. How many bytes it will send is known after the read.
_READ_BYTES = 64 * 1024
# A message is in memory twice: here, and as gRPC's copy.
_COPIES = 2


@dataclass(frozen=True, slots=True)
class _Lag:
    """What changed since a revision, read once for all followers that are at this revision.

    It has only entries of the types that these followers asked for.
    """

    messages: Sequence[Message]
    revision: int


@dataclass(slots=True)
class _Ready:
    """Encoded messages up to `revision`; `last_sent` as in _Follower once they are sent."""

    messages: list[bytes]
    """The next one is the last."""
    revision: int
    last_sent: tuple[int, int, int] | None
    size_bytes: int = 0
    """Of all messages together."""


_RunningFeed = tuple[Feed, asyncio.Task[None]]


class Follows:
    """All follows of this process, and the feeds that they share."""

    def __init__(
        self,
        changes: LogChanges,
        bus: Bus,
        *,
        sync: Sync,
        lease: timedelta,
        generations: Generations,
        progress_after: timedelta = _PROGRESS_AFTER,
        tails: TailBudget | None = None,
    ) -> None:
        self._changes = changes
        self._sync = sync
        self._lease = lease
        self.progress_after = progress_after
        self._feeds: dict[UUID, _RunningFeed] = {}
        self._lagging: Singleflight[_Lag] = Singleflight()
        self._draining: ServerDraining | None = None
        self._generations = generations
        generations.on_change(self._generation_changed)
        self._bus = bus
        bus.listen(self._noted)
        bus.hear(self._heard)
        bus.watch(self._peers_changed)
        self._wakes = PacedWakes(self._wake)
        if tails is not None:
            tails.add(lambda: [feed for feed, _ in list(self._feeds.values())])

    @property
    def followers(self) -> int:
        """How many streams are open. Thread-safe."""
        return sum(feed.followers for feed, _ in list(self._feeds.values()))

    @asynccontextmanager
    async def following(
        self, query: FollowQuery, budget: SendBudget | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Begin a follow. Its encoded messages come until it ends with an error.

        `budget`: it waits for room there before it makes the next messages of the log. None: it
        does not wait.

        When it begins, it raises what a read raises, and CursorExpired. Later it raises
        TaskNotFound, ServerDraining, CursorExpired if entries were evicted before it sent them, and
        StoreUnavailable if the store went back in time: the cursor shows what the caller lacks.
        """
        generation = self._generations.current
        task, revision = await self._start(query)
        if self._generations.current != generation:  # what was read may not exist any more
            raise StoreUnavailable(RETRY_AFTER)
        detail = derive(task.facts)
        plan_read(detail, query.source)
        if self._draining is not None:  # the drain may have begun while the task was read
            raise self._draining
        woken = Wake()
        async with self._feed(task, detail, woken) as feed:
            if feed.detail != detail:
                await feed.refresh()  # the feed may not have read these facts yet
            follower = _Follower(self, feed, query, revision, woken, budget or Unlimited())
            async with aclosing(follower.messages()) as messages:
                try:
                    yield messages
                except TaskNotFound:  # it was deleted; the feed knows only its UUID
                    raise TaskNotFound(str(query.ref)) from None

    def drain(self, error: ServerDraining) -> None:
        """End all follows, and refuse new ones."""
        self._draining = error
        for feed, _ in list(self._feeds.values()):
            feed.end(error)

    async def lag(self, task_id: UUID, revision: int, types: tuple[int, ...]) -> _Lag:
        """Read what changed after `revision`, once for all followers that ask at the same time.

        Raises CursorExpired if some of it was evicted, or if `revision` is of a lost history.
        """
        read = partial(self._read, task_id, revision, types)
        return await self._lagging.run((task_id, revision, types), read)

    def sync(self, task_id: UUID) -> SyncRequest:
        """Ask for a store that is up to date."""
        return self._sync(task_id, max_staleness=None, time_left=None)

    async def _start(self, query: FollowQuery) -> tuple[Task, int]:
        task, revision = await self._changes.start(query.ref, query.tail, query.types)
        concerns(task.task_id)
        if query.cursor is None:
            return task, revision
        if query.cursor.task_id != task.task_id:
            # Names are reused: the cursor's task may not exist any more. A task that the caller may
            # not see does not exist for them. Raises TaskNotFound.
            await self._changes.start(TaskId(query.cursor.task_id, query.sees_only), 0)
            raise InvalidFields([FieldViolation("cursor", "is of another task")])
        if task.head.has_lost(query.cursor.revision):
            raise expired(task)
        if query.cursor.revision < task.head.evicted.revision:
            raise expired(task)
        return task, query.cursor.revision

    async def _read(self, task_id: UUID, revision: int, types: tuple[int, ...]) -> _Lag:
        read = await self._changes.since(task_id, revision, types=types)
        if revision < read.task.head.evicted.revision:
            raise expired(read.task)
        if read.task.head.has_lost(revision):
            raise expired(read.task)
        messages = messages_of(TailFold(), task_id, read.changes, read.task.head.tail)
        return _Lag(messages, read.revision)

    @asynccontextmanager
    async def _feed(self, task: Task, detail: StatusDetail, follower: Wake) -> AsyncIterator[Feed]:
        """Lend the task's feed. The first follower opens it, the last one closes it."""
        feed, running = self._feeds.get(task.task_id) or self._open(task, detail)
        if feed.error is not None:  # its followers are ending, perhaps slowly
            feed, running = self._open(task, detail)
        try:
            with feed.wakes(follower):
                yield feed
        finally:
            if not feed.is_followed:
                if self._feeds.get(task.task_id) == (feed, running):
                    del self._feeds[task.task_id]
                    self._bus.unfollow(task.task_id)
                running.cancel()
                with suppress(asyncio.CancelledError):
                    await running

    def _open(self, task: Task, detail: StatusDetail) -> _RunningFeed:
        feed = Feed(task, detail, self._changes, lease=self._lease)
        running = asyncio.create_task(feed.run(), name=f"feed {task.task_id}")
        self._feeds[task.task_id] = feed, running
        self._bus.follow(task.task_id)
        return feed, running

    def _generation_changed(self) -> None:
        """End all follows: their clients resume with their cursors, which are then checked."""
        for feed, _ in list(self._feeds.values()):
            feed.end(StoreUnavailable(RETRY_AFTER))

    def _noted(self, note: Note) -> None:
        followed = self._feeds.get(note.task_id)
        if followed is None:
            return
        feed = followed[0]
        if isinstance(note, Deleted):
            feed.end(TaskNotFound(str(note.task_id)))
        elif isinstance(note, Moved) and note.commit is not None:
            feed.committed(note.commit)
        elif isinstance(note, Moved):
            feed.wake()

    def _heard(self, _: UUID, note: HeardNote) -> None:
        """Read what another process has changed. Its note alone ends no follow."""
        if not isinstance(note, Moved | Deleted):
            return
        followed = self._feeds.get(note.task_id)
        if followed is None:
            return
        feed = followed[0]
        revision = note.revision if isinstance(note, Moved) else None
        if revision is None or revision > feed.revision:
            feed.wake()

    def _peers_changed(self, _: UUID | None, event: PeerEvent) -> None:
        if event in (PeerEvent.GAP, PeerEvent.MOVED):
            self._wakes.add(self._feeds)

    def _wake(self, task_id: UUID) -> None:
        followed = self._feeds.get(task_id)
        if followed is not None:
            followed[0].wake()


class _Follower:
    """One stream: the revision that it has reached, and what it has sent."""

    def __init__(
        self,
        follows: Follows,
        feed: Feed,
        query: FollowQuery,
        revision: int,
        woken: Wake,
        budget: SendBudget,
    ) -> None:
        self._follows = follows
        self._feed = feed
        self._query = query
        self._revision = revision
        self._woken = woken
        self._budget = budget
        self._may_begin_later = query.cursor is None
        self._sent_detail: StatusDetail | None = None
        self._silence = Silence(query.progress_interval or follows.progress_after, woken)
        self._last_sent: tuple[int, int, int] | None = None
        """Epoch, id and revision of the last entry that was sent. The next delta builds on it."""
        self._caught_up_at: int | None = None
        """The revision at which to send CaughtUp; None: not known yet, or already sent."""

    async def messages(self) -> AsyncGenerator[bytes, None]:
        """Yield the stream's messages."""
        finding = asyncio.create_task(self._find_caught_up(), name="follow catches up")
        finding.add_done_callback(lambda _: self._woken.set())
        try:
            while True:
                self._woken.clear()
                if self._feed.error is not None:
                    raise self._feed.error
                if finding.done():
                    finding.result()  # an unexpected failure ends the stream
                detail = self._feed.detail
                if self._sent_detail is not detail and self._sent_detail != detail:
                    yield self._own(self._status())
                    self._silence.wrote()
                # One step per turn, so that a follower that never keeps up gets the status, too.
                if self._revision < self._feed.revision and not self._budget.is_waiting:
                    due: Step | _Lag | None = self._feed.step_after(self._revision)
                    if due is None and self._budget.acquire(_READ_BYTES, self._woken):
                        reading = asyncio.create_task(self._lag(), name="follow reads")
                        try:
                            while await self._silence.is_over_before(reading):
                                yield self._own(Progress())
                                self._silence.wrote()
                        finally:
                            await _end(reading)
                        due = reading.result()
                        del reading
                    ready = None if due is None else self._ready(due)
                    # A caller that does not read stops this here: it holds the encoded messages
                    # that it was given, and nothing else.
                    due = None
                    if ready is not None and self._may_send(ready.size_bytes):
                        self._last_sent = ready.last_sent
                        while ready.messages:
                            self._may_begin_later = False
                            yield ready.messages.pop()
                            self._silence.wrote()
                        self._revision = ready.revision
                        self._budget.release()
                    # One that waits for room encodes its messages again when its turn comes.
                    ready = None
                if self._caught_up_at is not None and self._revision >= self._caught_up_at:
                    self._caught_up_at = None
                    yield self._own(CaughtUp())
                    self._silence.wrote()
                if self._silence.is_over:
                    yield self._own(Progress())
                    self._silence.wrote()
                elif self._budget.is_waiting:
                    with self._feed.wakes_less(self._woken):
                        await self._woken.wait()
                elif self._revision >= self._feed.revision:
                    await self._woken.wait()
        finally:
            self._silence.stop()
            await _end(finding)

    def _status(self) -> StatusChanged:
        task_id = self._feed.task_id if self._sent_detail is None else None
        self._sent_detail = self._feed.detail
        return StatusChanged(self._sent_detail, task_id)

    async def _lag(self) -> _Lag:
        """Read what comes next."""
        try:
            return await self._follows.lag(self._feed.task_id, self._revision, self._query.types)
        except StoreUnavailable:
            await asyncio.sleep(_STORE_RETRY_SECONDS)
            return _Lag((), self._revision)
        except CursorExpired as error:
            if not self._may_begin_later or error.oldest is None:
                raise
            # It asked for everything in the log, and nothing was sent yet: it begins at the oldest
            # entry left.
            return _Lag((), Cursor.decode(error.oldest).revision)

    def _ready(self, due: Step | _Lag) -> _Ready:
        ready = _Ready([], due.revision, self._last_sent)
        types = self._query.types
        for each in due.messages:
            message = each.of_types(types) if types else each
            if message is None:
                continue
            for part in message.parts() if self._query.compressed else (message,):
                encoded = self._wire(part, ready)
                ready.messages.append(encoded)
                ready.size_bytes += len(encoded)
        ready.messages.reverse()
        return ready

    def _may_send(self, size_bytes: int) -> bool:
        return not size_bytes or self._budget.acquire(_COPIES * size_bytes, self._woken)

    def _wire(self, message: Message, ready: _Ready) -> bytes:
        event = message.event
        as_delta = False
        if isinstance(event, TailSent):
            base = (event.epoch, event.head.id, event.base_revision)
            as_delta = self._query.deltas and event.delta is not None and ready.last_sent == base
            ready.last_sent = (event.epoch, event.head.id, event.revision)
        elif isinstance(event, EntriesChanged):
            ready.last_sent = (event.epoch, event.last_id, event.revision)
        return message.encoded(as_delta=as_delta, compressed=self._query.compressed)

    def _own(self, event: FollowEvent) -> bytes:
        cursor = Cursor(self._feed.task_id, self._revision).encode()
        return encode_event(cursor, event, as_delta=False)

    async def _find_caught_up(self) -> None:
        """Find the revision at which the follower has everything that was there when it began.

        The revision is known once a read of the same source succeeds. While the task app fails, or
        the status refuses reads, this waits.
        """
        while True:
            reached = await self._up_to_date()
            if reached is not None:
                break
            await asyncio.sleep(_SYNC_RETRY_SECONDS)
        self._caught_up_at = reached

    async def _up_to_date(self) -> int | None:
        """Return the revision at which the log is up to date. None: it is not now."""
        feed = self._feed
        try:
            if plan_read(feed.detail, self._query.source) is not ReadPlan.SYNC_THEN_READ:
                return await feed.refresh()
            request = self._follows.sync(feed.task_id)
            synced = await request.done(feed.stored)
            reached = await feed.refresh()
            if feed.error is not None or synced.is_held_by(feed.stored):
                return reached
            await request.refute(synced)
        except TaskLogsError:  # neither a failed nor a refused sync ends a follow
            pass
        return None


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancel a task that is not done, and wait for its end. Its failure is not raised."""
    if not task.done():
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # otherwise asyncio logs it as never retrieved
