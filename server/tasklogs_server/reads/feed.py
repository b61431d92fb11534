"""One followed task in this process: each change is read and encoded once, for all its followers.

A note wakes the feed, and the feed reads what changed from the store. If a note is lost, a slow
timer wakes the feed later. The note of a commit of this process carries the commit: if the feed
knows the log up to the commit's base, it uses the commit and does not read the store.

A follower gets the next messages in one of three ways:

1. It keeps up: it gets the feed's last step, with the same encoded messages as all others.
2. It is behind, but only the tail has grown since: it gets one message with the joined growth.
3. It is further behind: it reads the store, which has one change per entry. Followers at the same
   revision share that read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from uuid import UUID

import structlog

from tasklogs import compression
from tasklogs_server.concurrency.wake import Settable
from tasklogs_server.domain.errors import (
    CursorExpired,
    StoreUnavailable,
    TaskNotFound,
)
from tasklogs_server.domain.status import StatusDetail, derive
from tasklogs_server.reads.follow_encoding import encode_compressed, encode_event
from tasklogs_server.reads.follow_events import (
    LogEvent,
    TailSent,
    content_bytes,
    event_of_types,
    parts_of,
)
from tasklogs_server.reads.growth import Growth
from tasklogs_server.reads.tail_fold import TailFold
from tasklogs_server.reads.tokens import Cursor
from tasklogs_server.store.log_changes import (
    Change,
    EntriesChanged,
    LogChanges,
    changes_of,
)
from tasklogs_server.store.records import Commit, TailHead, Task

# An event of this length fits into a compressed message. What is around its entries takes less.
_COMPRESSED_BYTES = compression.MAX_EXPANDED_BYTES - 1024
# To compress what shrinks so much, such as screens, takes a millisecond for 300 KB. Other texts
# take ten times as long, and other calls wait meanwhile.
_REPETITIVE = 0.25
_POLL_SECONDS = 10.0
_STORE_RETRY_SECONDS = 0.5

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Message:
    """One message to followers of a task, encoded when the first of them needs it."""

    cursor: Cursor
    event: LogEvent
    _encoded: dict[tuple[bool, bool], bytes] = field(default_factory=dict)
    _of_types: dict[tuple[int, ...], Message | None] | None = None
    _parts: Sequence[Message] | None = None

    @property
    def size_bytes(self) -> int:
        """About how many bytes it holds."""
        encoded = list(self._encoded.values())  # a scrape reads this in its own thread
        made = [*(self._of_types or {}).values(), *(self._parts or ())]
        return (
            content_bytes(self.event)
            + sum(map(len, encoded))
            + sum(one.size_bytes for one in made if one is not None)
        )

    def encoded(self, *, as_delta: bool, compressed: bool = False) -> bytes:
        """Return the encoded message; see encode_event and encode_compressed."""
        form = (as_delta, compressed)
        encoded = self._encoded.get(form)
        if encoded is None:
            if compressed:
                encoded = encode_compressed(self.cursor, self.event, as_delta=as_delta)
            else:
                encoded = encode_event(self.cursor.encode(), self.event, as_delta=as_delta)
            self._encoded[form] = encoded
        return encoded

    def parts(self) -> Sequence[Message]:
        """Return the messages that carry this one to followers that set `compressed`.

        If it has entries that are too long to be compressed together, these are several, each with
        the cursor of its last entry.
        """
        event = self.event
        if not isinstance(event, EntriesChanged) or len(event.encoded) <= _COMPRESSED_BYTES:
            return (self,)
        if self._parts is None:
            self._parts = self._split(event)
        return self._parts or (self,)

    def _split(self, event: EntriesChanged) -> Sequence[Message]:
        if not compression.shrinks(event.encoded, to=_REPETITIVE):
            return ()
        parts = parts_of(event, _COMPRESSED_BYTES)
        if len(parts) == 1:
            return ()
        task_id = self.cursor.task_id
        return [Message(Cursor(task_id, part.revision), part) for part in parts]

    def of_types(self, types: tuple[int, ...]) -> Message | None:
        """Return this message for followers of these types; None: they do not get it.

        The message is made when the first of them needs it. Its cursor is the same: what is left
        out moves it, too. `types` empty: all types.
        """
        if not types:
            return self
        if self._of_types is None:
            self._of_types = {}
        if types not in self._of_types:
            event = event_of_types(self.event, types)
            if event is self.event:
                return self
            self._of_types[types] = None if event is None else Message(self.cursor, event)
        return self._of_types[types]


@dataclass(frozen=True, slots=True)
class Step:
    """What changed from one revision to another."""

    after: int
    revision: int
    messages: Sequence[Message]

    @property
    def size_bytes(self) -> int:
        """About how many bytes its messages hold, encoded or not."""
        return sum(message.size_bytes for message in self.messages)


class Feed:
    """A followed task. `run` must run as long as there are followers."""

    def __init__(
        self, task: Task, detail: StatusDetail, changes: LogChanges, *, lease: timedelta
    ) -> None:
        self.task_id = task.task_id
        self.revision = task.head.revision
        self.detail = detail
        self.stored = task.stored
        """What the last read found in the task's rows."""
        self.error: Exception | None = None
        """Why all follows of the task end."""
        self._changes = changes
        self._poll_seconds = _poll_seconds(task, lease)
        self._fold = TailFold()
        self._last: Step | None = None
        self._growth = Growth()
        self._changed_at = time.monotonic()
        self._is_reading = False
        self._woken = asyncio.Event()
        self._followers: set[Settable] = set()
        self._waiting: set[Settable] = set()
        """Followers that cannot take changes of the log now."""
        self._refreshers: list[asyncio.Future[int]] = []

    @contextmanager
    def wakes(self, follower: Settable) -> Iterator[None]:
        """Within the block, set `follower` at every change of revision, status or error."""
        self._followers.add(follower)
        try:
            yield
        finally:
            self._followers.discard(follower)

    @contextmanager
    def wakes_less(self, follower: Settable) -> Iterator[None]:
        """Within the block, do not set `follower` when only the revision changes.

        After the block it must look at the revision again. Thousands of followers that wait for
        room would take 15 us each at every change, and all others would wait for them.
        """
        self._waiting.add(follower)
        try:
            yield
        finally:
            self._waiting.discard(follower)

    @property
    def followers(self) -> int:
        """How many followers there are."""
        return len(self._followers)

    @property
    def is_followed(self) -> bool:
        """Whether there is a follower."""
        return bool(self._followers)

    def wake(self) -> None:
        """Tell the feed that something changed: it reads the store."""
        self._woken.set()

    def committed(self, commit: Commit) -> None:
        """Use a commit of this process. If that is not possible, read the store instead."""
        if commit.head.revision <= self.revision or self.error is not None:
            return
        if (
            self._is_reading
            or commit.base_revision != self.revision
            or not self._fold.can_fold(commit)
        ):
            self.wake()
            return
        try:
            messages = messages_of(self._fold, self.task_id, changes_of(commit), commit.head.tail)
        except Exception:  # the group commit has other listeners and tasks
            _log.exception("feed.commit_refused", task=str(self.task_id))
            self._fold = TailFold()
            self.wake()
            return
        self._add_step(messages, commit.head.revision)
        self._broadcast(only_log=True)

    def end(self, error: Exception) -> None:
        """End all follows with `error`, unless an earlier error has ended them."""
        self.error = self.error or error
        self._woken.set()
        self._broadcast()

    def step_after(self, revision: int) -> Step | None:
        """Return the step from `revision` to the feed's revision, if the feed holds it.

        None: the follower reads the store. Followers at the same revision share that read. If a
        read goes past the feed's revision, the follower needs one more read before it gets steps
        again.
        """
        last = self._last
        if last is None or revision >= last.revision:
            return None
        if last.after == revision:
            return last
        match last.messages:
            case [Message(cursor, TailSent() as tail)]:
                growth = self._growth.since(revision, tail.content)
            case _:
                return None
        if growth is None:
            return None
        event = replace(tail, base_revision=revision, delta=growth)
        return Step(revision, last.revision, [Message(cursor, event)])

    def _add_step(self, messages: Sequence[Message], revision: int) -> None:
        self._last = Step(self.revision, revision, messages)
        self._changed_at = time.monotonic()
        self._growth.note(self.revision, [one.event for one in messages])
        self.revision = revision

    @property
    def tail_bytes(self) -> int:
        """The bytes that are held for the next change, and for followers that lack the last one."""
        step_bytes = 0 if self._last is None else self._last.size_bytes
        return self._fold.held_bytes + self._growth.size_bytes + step_bytes

    @property
    def tail_idle_seconds(self) -> float:
        """How long the log has not changed."""
        return time.monotonic() - self._changed_at

    def release_tail(self) -> None:
        """Release what is held. The next change is read from the store with the whole tail.

        A read that is under way may bring only what continues the held tail.
        """
        if not self._is_reading:
            self._fold.release()
            self._forget_steps()

    def _forget_steps(self) -> None:
        self._last = None
        self._growth.forget()

    async def refresh(self) -> int:
        """Wait for a read that begins after this call; return the revision that it found.

        If the follows end meanwhile, return the last known revision.
        """
        if self.error is not None:
            return self.revision
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._refreshers.append(found)
        self.wake()
        return await found

    async def run(self) -> None:
        """Read what changes, until cancelled or all follows end."""
        # The follower that opened the feed asks for a refresh in its first turn. After it, one read
        # serves both.
        await asyncio.sleep(0)
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
        """Read a page of changes and pass it on. Return whether there is more."""
        self._is_reading = True
        try:
            read = await self._changes.since(
                self.task_id, self.revision, held_revision=self._fold.held_revision
            )
        finally:
            self._is_reading = False
        self.stored = read.task.stored
        if read.task.head.has_lost(self.revision):
            # The store went back in time: followers received changes that no longer exist.
            raise expired(read.task)
        detail = derive(read.task.facts)
        if read.revision > self.revision:
            messages = messages_of(self._fold, self.task_id, read.changes, read.task.head.tail)
            if self.revision < read.task.head.evicted.revision:
                # Some of the changes were evicted: no step can include them. Followers read the
                # store from their own revisions, and end if what they need was evicted.
                self._forget_steps()
                self.revision = read.revision
            else:
                self._add_step(messages, read.revision)
        else:
            self._forget_steps()  # all followers have them; they may hold a megabyte
            if detail == self.detail:
                return read.more
        only_log = detail == self.detail
        self.detail = detail
        self._broadcast(only_log=only_log)
        return read.more

    def _settle(self, refreshers: list[asyncio.Future[int]]) -> None:
        for found in refreshers:
            if not found.done():
                found.set_result(self.revision)

    def _broadcast(self, *, only_log: bool = False) -> None:
        """Wake the followers. `only_log`: neither the status changed, nor do the follows end."""
        waiting = self._waiting if only_log else ()
        for follower in self._followers.difference(waiting) if waiting else self._followers:
            follower.set()


def expired(task: Task) -> CursorExpired:
    """Return the error for a cursor after which changes were evicted, or of a lost history.

    It carries the oldest cursor after which no change was evicted.
    """
    return CursorExpired(Cursor(task.task_id, task.head.evicted.revision).encode())


def messages_of(
    fold: TailFold, task_id: UUID, changes: Sequence[Change], tail: TailHead | None
) -> Sequence[Message]:
    """Return the messages for `changes`, each with its cursor; see TailFold.events."""
    return [Message(Cursor(task_id, event.revision), event) for event in fold.events(changes, tail)]


def _poll_seconds(task: Task, lease: timedelta) -> float:
    # There is no note when a lease ends, so the feed of a standalone task polls more often.
    if task.standalone:
        return min(_POLL_SECONDS, max(0.5, lease.total_seconds() / 10))
    return _POLL_SECONDS
