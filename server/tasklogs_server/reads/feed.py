"""One followed task in this process: each change is read and encoded once, for all its followers.

A note wakes the feed, the store decides what changed, and a slow timer catches what a lost note
missed. What this process commits itself is taken as it was committed where the feed knows all that
came before: reading it again would double the store's work for every change. Followers that keep up
take its last step; whoever lags reads the store from its own place, where the changes of an entry
have become one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from uuid import UUID

import structlog

from tasklogs.log import delta
from tasklogs.log.delta import Delta, diff
from tasklogs_server.domain.errors import (
    CursorExpired,
    LogCorrupt,
    StoreUnavailable,
    TaskNotFound,
)
from tasklogs_server.domain.status import StatusDetail, derive
from tasklogs_server.reads.follow_events import FollowEvent, LogEvent, TailSent
from tasklogs_server.reads.growth import Growth
from tasklogs_server.reads.tokens import Cursor
from tasklogs_server.store.log_changes import (
    Change,
    EntriesChanged,
    LogChanges,
    TailChanged,
    changes_of,
)
from tasklogs_server.store.records import Commit, TailHead, TailWithdrawn, Task

Encode = Callable[[str, FollowEvent, bool], bytes]
"""Encodes an event with its cursor; True: as a delta where it can be."""

_POLL_SECONDS = 10.0
_STORE_RETRY_SECONDS = 0.5

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Message:
    """One message to followers of a task. It is encoded when the first of them needs it."""

    cursor: str
    event: LogEvent
    _whole: bytes | None = None
    _delta: bytes | None = None

    def wire(self, encode: Encode, *, as_delta: bool) -> bytes:
        """Return it as it travels."""
        if as_delta:
            if self._delta is None:
                self._delta = encode(self.cursor, self.event, True)
            return self._delta
        if self._whole is None:
            self._whole = encode(self.cursor, self.event, False)
        return self._whole


@dataclass(frozen=True, slots=True)
class Step:
    """What changed from one revision to another."""

    after: int
    revision: int
    messages: Sequence[Message]


@dataclass(slots=True)
class _HeldTail:
    epoch: int
    id: int
    revision: int
    dropped_bytes: int
    content: bytearray = field(repr=False)


class TailFold:
    """Makes events of changes: folds the tail's parts on what is held of it, and finds deltas."""

    def __init__(self) -> None:
        self._held: _HeldTail | None = None

    @property
    def held_revision(self) -> int | None:
        """Up to which revision the tail is held."""
        return None if self._held is None else self._held.revision

    def takes(self, commit: Commit) -> bool:
        """Whether what is held is enough for the events of a commit on top of what was folded."""
        tail, held = commit.head.tail, self._held
        if commit.part is None or tail is None:
            return commit.part is None
        return held is not None and (held.epoch, held.id) == (commit.head.epoch, tail.id)

    def events(self, changes: Sequence[Change], tail: TailHead | None) -> Sequence[LogEvent]:
        """Return what followers are told of `changes`, after which the log has this tail."""
        return [self._event(one, tail) for one in changes]

    def _event(self, change: Change, tail: TailHead | None) -> LogEvent:
        match change:
            case TailChanged():
                return self._tail(change)
            case EntriesChanged():
                return self._entries(change, tail)
            case TailWithdrawn():
                # An entry that takes the same id again is another one: no base for a delta.
                self._held = None
        return change

    def _entries(self, change: EntriesChanged, tail: TailHead | None) -> LogEvent:
        if change.tail_content is None or tail is None or tail.id != change.last_id:
            self._held = None
            return change
        self._held = _HeldTail(
            change.epoch,
            change.last_id,
            change.revision,
            tail.dropped_bytes,
            bytearray(change.tail_content),
        )
        return change

    def _tail(self, change: TailChanged) -> LogEvent:
        held = self._held
        known = held is not None and (held.epoch, held.id) == (change.epoch, change.head.id)
        before = bytes(held.content) if held is not None and known else None
        base_revision = held.revision if held is not None and known else None
        content = bytearray(change.base if change.base is not None else before or b"")
        if change.base is None and before is None:
            raise LogCorrupt
        kept = len(content) if change.base is None else None
        try:
            for part in change.deltas:
                delta.patch(content, part)
                kept = None if kept is None else min(kept, part.keep_bytes)
        except ValueError as error:
            raise LogCorrupt from error
        head = change.head
        self._held = _HeldTail(change.epoch, head.id, head.revision, head.dropped_bytes, content)
        whole = bytes(content)
        grown: Delta | None = None
        # A delta does not say that the front was dropped meanwhile.
        if held is not None and before is not None and held.dropped_bytes == head.dropped_bytes:
            grown = Delta(kept, whole[kept:]) if kept is not None else diff(before, whole)
        return TailSent(change.epoch, change.head, whole, base_revision, grown)


class Feed:
    """A followed task. `run` must run for as long as there are followers."""

    def __init__(self, task: Task, changes: LogChanges, *, lease: timedelta) -> None:
        self.task_id = task.task_id
        self.revision = task.head.revision
        self.detail: StatusDetail = derive(task.facts)
        self.error: Exception | None = None
        """Why all follows of the task end."""
        self._changes = changes
        self._poll_seconds = _poll_seconds(task, lease)
        self._fold = TailFold()
        self._last: Step | None = None
        self._growth = Growth()
        self._is_reading = False
        self._woken = asyncio.Event()
        self._followers: set[asyncio.Event] = set()
        self._refreshers: list[asyncio.Future[int]] = []

    @contextmanager
    def wakes(self, follower: asyncio.Event) -> Iterator[None]:
        """Set `follower` at every change of revision, status or error while the block lasts."""
        self._followers.add(follower)
        try:
            yield
        finally:
            self._followers.discard(follower)

    @property
    def followers(self) -> int:
        """How many are woken."""
        return len(self._followers)

    @property
    def is_followed(self) -> bool:
        """Whether anyone is woken."""
        return bool(self._followers)

    def wake(self) -> None:
        """Say that something changed: the feed looks."""
        self._woken.set()

    def committed(self, commit: Commit) -> None:
        """Take a change that this process committed; where that is not possible, the feed looks."""
        if commit.head.revision <= self.revision or self.error is not None:
            return
        if (
            self._is_reading
            or commit.base_revision != self.revision
            or not self._fold.takes(commit)
        ):
            self.wake()
            return
        try:
            messages = messages_of(self._fold, self.task_id, changes_of(commit), commit.head.tail)
        except Exception:  # the group commit tells others next
            _log.exception("feed.commit_refused", task=str(self.task_id))
            self._fold = TailFold()
            self.wake()
            return
        self._take(messages, commit.head.revision)
        self._broadcast()

    def end(self, error: Exception) -> None:
        """End all follows; the first reason counts."""
        self.error = self.error or error
        self._woken.set()
        self._broadcast()

    def step_after(self, revision: int) -> Step | None:
        """Return the step from `revision` to here, if it can be made of the last one.

        A follower that lagged may be past the last step's beginning. It must find its way back to
        the steps of all, or it would read the store for itself at every change from then on.
        """
        last = self._last
        if last is None or revision >= last.revision:
            return None
        if last.after == revision:
            return last
        if revision < last.after:
            return self._grown_since(revision, last)
        due = [one for one in last.messages if one.event.revision > revision]
        if any(_begins(one.event) <= revision for one in due):
            return None
        return Step(revision, last.revision, due)

    def _grown_since(self, revision: int, last: Step) -> Step | None:
        """Return the step from an earlier `revision`, where the tail alone has changed since."""
        growth = self._growth.since(revision)
        if growth is None:
            return None
        [message] = last.messages
        assert isinstance(message.event, TailSent)
        event = replace(message.event, base_revision=revision, delta=growth)
        return Step(revision, last.revision, [Message(message.cursor, event)])

    def _take(self, messages: Sequence[Message], revision: int) -> None:
        self._last = Step(self.revision, revision, messages)
        self._growth.note(self.revision, [one.event for one in messages])
        self.revision = revision

    def _forget_steps(self) -> None:
        self._last = None
        self._growth.forget()

    async def refresh(self) -> int:
        """Wait for a read that begins after this call; return the revision that it found.

        Where the follows end meanwhile, it is the last one that was known.
        """
        if self.error is not None:
            return self.revision
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._refreshers.append(found)
        self.wake()
        return await found

    async def run(self) -> None:
        """Read what changes, until cancelled or all follows end."""
        try:
            while self.error is None:
                self._woken.clear()
                try:
                    await self._catch_up()
                except StoreUnavailable:
                    await asyncio.sleep(_STORE_RETRY_SECONDS)
                    continue
                except (TaskNotFound, CursorExpired) as error:
                    self.end(error)
                except Exception as error:
                    _log.exception("feed.failed", task=str(self.task_id))
                    self.end(error)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_seconds):
                        await self._woken.wait()
        finally:
            self._settle(self._refreshers)

    async def _catch_up(self) -> None:
        waiting, self._refreshers = self._refreshers, []
        try:
            while await self._read():
                pass
        except BaseException:
            self._refreshers += waiting
            raise
        self._settle(waiting)

    async def _read(self) -> bool:
        """Read and pass on a page of what changed; True where there is more."""
        self._is_reading = True
        try:
            read = await self._changes.since(
                self.task_id, self.revision, held_revision=self._fold.held_revision
            )
        finally:
            self._is_reading = False
        if read.task.head.revision < self.revision:
            # A restored backup: what followers were told is no longer so.
            raise expired(read.task)
        detail = derive(read.task.facts)
        if read.revision > self.revision:
            messages = messages_of(self._fold, self.task_id, read.changes, read.task.head.tail)
            if self.revision < read.task.head.evicted.revision:
                # Some of what came in between is gone: no step leads over that. Followers read
                # the store from their own places, and are told where theirs is no longer held.
                self._forget_steps()
                self.revision = read.revision
            else:
                self._take(messages, read.revision)
        else:
            self._forget_steps()  # taken long ago; they may hold a megabyte
            if detail == self.detail:
                return read.more
        self.detail = detail
        self._broadcast()
        return read.more

    def _settle(self, refreshers: list[asyncio.Future[int]]) -> None:
        for found in refreshers:
            if not found.done():
                found.set_result(self.revision)

    def _broadcast(self) -> None:
        for follower in self._followers:
            follower.set()


def expired(task: Task) -> CursorExpired:
    """Return what a place that is no longer held is answered with.

    All that is held has changed after the oldest cursor.
    """
    return CursorExpired(Cursor(task.task_id, task.head.evicted.revision).encode())


def messages_of(
    fold: TailFold, task_id: UUID, changes: Sequence[Change], tail: TailHead | None
) -> Sequence[Message]:
    """Return the messages that `changes` make, each with its cursor; see TailFold.events."""
    return [
        Message(Cursor(task_id, event.revision).encode(), event)
        for event in fold.events(changes, tail)
    ]


def _begins(event: LogEvent) -> int:
    return event.first_revision if isinstance(event, EntriesChanged) else event.revision


def _poll_seconds(task: Task, lease: timedelta) -> float:
    # The end of a lease comes without a note: whoever follows such a task looks in time.
    if task.standalone:
        return min(_POLL_SECONDS, max(0.5, lease.total_seconds() / 10))
    return _POLL_SECONDS
