"""Uploads of whole conversations, for agents without a stream. They follow the same rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from tasklogs.log import digest
from tasklogs.log.append import Append
from tasklogs.log.continuation import Verdict, compare
from tasklogs.log.entry import Entry
from tasklogs.log.truncation import truncate
from tasklogs_server.concurrency.loop_share import LoopShare
from tasklogs_server.concurrency.slices import slices
from tasklogs_server.domain.errors import LimitExceeded, SessionOpen, StoreUnavailable
from tasklogs_server.domain.limits import Limit
from tasklogs_server.domain.upload_limits import MAX_UPLOAD_BYTES, MAX_UPLOAD_ENTRIES
from tasklogs_server.ingest.draft import Draft
from tasklogs_server.ingest.large_commits import LargeCommits
from tasklogs_server.ingest.messages import cost_bytes
from tasklogs_server.ingest.session import SessionResources, position_of
from tasklogs_server.ingest.sessions import Sessions
from tasklogs_server.limits.upload_places import Place, UploadPlaces
from tasklogs_server.limits.upload_queue import UploadQueue
from tasklogs_server.store.records import Commit, LogHead
from tasklogs_server.store.sessions import Opening, SessionStore

_RETRY_AFTER = timedelta(seconds=1)
# An upload that costs more is not written by the group commit: all agents would wait for it.
_LARGE_BYTES = 4 * 1024 * 1024
_LARGE_ENTRIES = 500


@dataclass(frozen=True, slots=True)
class Turn:
    """The turn of an upload. `received_at`: when all of its request was there."""

    received_at: datetime
    end: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Stored:
    """The state of the log after an upload."""

    snapshot_at: datetime
    revision: int


class Uploads:
    """Stores whole conversations."""

    def __init__(
        self,
        resources: SessionResources,
        *,
        store: SessionStore,
        sessions: Sessions,
        large_commits: LargeCommits,
        queue: UploadQueue,
        places: UploadPlaces,
    ) -> None:
        self._resources = resources
        self._store = store
        self._sessions = sessions
        self._large_commits = large_commits
        self._queue = queue
        self._places = places
        self.share: LoopShare = resources.share
        """Whole conversations are handled in pieces under this share, which sessions use too."""

    @asynccontextmanager
    async def turn(self, task_id: UUID, size_bytes: int) -> AsyncIterator[Turn]:
        """Wait for the turn of an upload whose request has `size_bytes`, and hold it.

        A later time than that of the request would not be true of its conversation.
        Raises SessionOpen, and LimitExceeded while another upload of the task is under way, if too
        many bytes wait, or if the turn does not come in time.
        """
        received_at = self._resources.clock()
        with self._only_one(task_id):
            async with self._queue.turn(size_bytes) as end:
                yield Turn(received_at, end)

    @contextmanager
    def in_parts(self, task_id: UUID) -> Iterator[PartialUpload]:
        """Lend what collects a conversation that comes in parts.

        Raises SessionOpen, and LimitExceeded while another upload of the task is under way, or if
        there is no place for it.
        """
        with self._only_one(task_id), self._places.place() as place:
            yield PartialUpload(place)

    @contextmanager
    def _only_one(self, task_id: UUID) -> Iterator[None]:
        if self._sessions.find(task_id) is not None:
            raise SessionOpen
        with self._queue.only_one(task_id):
            yield

    async def upload_parts(
        self,
        task_id: UUID,
        parts: PartialUpload,
        *,
        still_opens: Callable[[], Awaitable[None]] | None = None,
    ) -> Stored:
        """Store a conversation of which all parts have arrived; see `upload`."""
        parts.place.complete()
        received_at = self._resources.clock()
        async with self._queue.turn(0) as end:

            def end_both() -> None:
                end()
                parts.leave()

            turn = Turn(received_at, end_both)
            return await self.upload(task_id, parts.entries, turn=turn, still_opens=still_opens)

    async def upload(
        self,
        task_id: UUID,
        entries: Sequence[Entry],
        *,
        turn: Turn | None = None,
        still_opens: Callable[[], Awaitable[None]] | None = None,
    ) -> Stored:
        """Store `entries`, the task app's whole list, which was received in this turn; None: now.

        `still_opens` raises if the agent's token was rotated after it was checked. A later rotation
        raises the fence. Raises SessionOpen while an agent stream is open, LimitExceeded if the
        task opened too many epochs, LogFull, and SessionSuperseded if another upload, a stream or a
        rotation raised the fence meanwhile.
        """
        received_at = self._resources.clock() if turn is None else turn.received_at
        if self._sessions.find(task_id) is not None:
            raise SessionOpen
        opening = await self._store.open_upload(task_id)
        if still_opens is not None:
            await still_opens()
        entries = await self._truncated(entries)
        append = await self._difference(task_id, opening, entries)
        if append is None:
            return Stored(opening.head.snapshot_at or received_at, opening.head.revision)
        await self._evict_for(task_id, opening.head, append)
        size_bytes = cost_bytes(append)
        if size_bytes > _LARGE_BYTES or len(append.entries) > _LARGE_ENTRIES:
            return await self._store_large(task_id, opening, append, received_at)
        budget = self._resources.budget
        await budget.acquire(size_bytes)
        try:
            writer = _UploadWriter(task_id, opening, append, received_at)
            self._resources.group_commit.submit(writer)
            # Another transaction may hold the task's rows for a minute: other uploads go on. So
            # only what is new stays in memory, which the budget counts.
            del entries, append
            if turn is not None:
                turn.end()
            return await writer.stored
        finally:
            budget.release(size_bytes)

    async def _store_large(
        self, task_id: UUID, opening: Opening, append: Append, received_at: datetime
    ) -> Stored:
        draft = _draft_after(opening)
        commits = _commits_of(append, draft, task_id, opening.fence, received_at)
        size_bytes = append.content_bytes
        await self._large_commits.commit(task_id, commits, size_bytes=size_bytes)
        return Stored(received_at, draft.revision)

    async def _difference(
        self, task_id: UUID, opening: Opening, entries: Sequence[Entry]
    ) -> Append | None:
        if await self._is_held(task_id, opening, entries):
            return None
        stored = position_of(opening.head, opening.tail_content)
        # The task app may have restarted since the last upload.
        sealed = await self._digest_of(entries[: stored.sealed])
        match compare(entries, stored, restarted=True, seal_all=lambda _: sealed):
            case Verdict.CONTINUES:
                return Append(1, entries=entries[stored.sealed :])
            case Verdict.WITHDRAWS_TAIL | Verdict.OPENS_EPOCH:
                await self._resources.epoch_limiter.check(task_id)
                return Append(1, open_epoch=True, entries=entries)

    async def _evict_for(self, task_id: UUID, head: LogHead, append: Append) -> None:
        rows, bytes_ = append.most_rows, append.content_bytes
        held_rows = head.rows - head.evicted.rows
        log_limiter = self._resources.log_limiter
        if not log_limiter.fits(held_rows + rows, head.held_bytes + bytes_):
            await log_limiter.evict_for(task_id, rows, bytes_)

    async def _is_held(self, task_id: UUID, opening: Opening, entries: Sequence[Entry]) -> bool:
        """Whether `entries` are stored: as a prefix, or up to an earlier state of the tail."""
        head = opening.head
        if not entries:
            return True
        if len(entries) > head.entries or head.epoch == 0:
            return False
        tail, content = head.tail, opening.tail_content
        sealed = head.entries if tail is None else head.entries - 1
        if len(entries) <= sealed:
            return await self._store.is_prefix(
                task_id, head.epoch, entries, generation=head.generation
            )
        last = entries[-1]
        return (
            tail is not None
            and content is not None
            and (last.id, last.type, last.names) == (tail.id, tail.type, tail.names)
            and last.time <= tail.time
            and last.dropped_bytes == tail.dropped_bytes
            and content.startswith(last.content)
            and await self._digest_of(entries[:-1]) == head.digest
        )

    async def _digest_of(self, entries: Sequence[Entry]) -> bytes:
        """Return the digest of an epoch whose sealed entries are `entries`."""
        value = digest.EMPTY
        for part in slices(entries, lambda entry: len(entry.content)):
            value = await self.share.run(partial(_sealed, value, part))
        return value

    async def _truncated(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        truncated: list[Entry] = []
        async for part in self.share.take(map(_truncated, entries), _LARGE_ENTRIES):
            truncated += part
        return truncated


class PartialUpload:
    """A conversation of which not all parts have arrived."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.entries: list[Entry] = []
        self._size_bytes = 0

    @property
    def last_id(self) -> int:
        """The id of the last entry; -1 without entries."""
        return self.entries[-1].id if self.entries else -1

    def leave(self) -> None:
        """Leave the place, and drop the entries: what must be stored is under way."""
        self.entries = []
        self.place.leave()

    def add(self, entries: Sequence[Entry]) -> None:
        """Add a part. Raises LimitExceeded: the conversation is too long."""
        self._size_bytes += sum(entry.size_bytes for entry in entries)
        if self._size_bytes > MAX_UPLOAD_BYTES:
            raise _too_long(f"at most {MAX_UPLOAD_BYTES} bytes of content and names")
        if len(self.entries) + len(entries) > MAX_UPLOAD_ENTRIES:
            raise _too_long(f"at most {MAX_UPLOAD_ENTRIES} entries")
        self.entries += entries


def _too_long(what: str) -> LimitExceeded:
    return LimitExceeded(Limit.UPLOAD_SIZE, "upload", what, None)


def _draft_after(opening: Opening) -> Draft:
    return Draft(
        opening.head,
        opening.tail_content,
        tail_parts=opening.tail_parts,
        last_sealed_id=opening.last_sealed_id,
    )


def _commits_of(
    append: Append, draft: Draft, task_id: UUID, fence: int, received_at: datetime
) -> Iterator[Commit]:
    """Yield what stores `append`, in commits that each build on the one before."""
    open_epoch = append.open_epoch
    for part in slices(append.entries, lambda entry: entry.size_bytes):
        draft.apply(Append(open_epoch=open_epoch, entries=part))
        open_epoch = False
        commit = draft.next_commit(task_id, fence, received_at)
        assert commit is not None
        yield commit


def _sealed(value: bytes, entries: Sequence[Entry]) -> bytes:
    for entry in entries:
        value = digest.seal(value, entry)
    return value


class _UploadWriter:
    """One commit, and the future that waits for it."""

    def __init__(
        self, task_id: UUID, opening: Opening, append: Append, received_at: datetime
    ) -> None:
        self.stored: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        self._task_id = task_id
        self._fence = opening.fence
        self._received_at = received_at
        self._draft = _draft_after(opening)
        self._draft.apply(append)

    @property
    def pending_bytes(self) -> int:
        return self._draft.size_bytes

    def next_commit(self) -> Commit | None:
        return self._draft.next_commit(self._task_id, self._fence, self._received_at)

    def committed(self, commit: Commit) -> None:
        if not self.stored.done():
            self.stored.set_result(Stored(self._received_at, commit.head.revision))

    def lost(self, error: Exception) -> None:
        if not self.stored.done():
            self.stored.set_exception(error)

    def undecided(self) -> None:
        # If it was stored, uploading the same again changes nothing.
        self.lost(StoreUnavailable(_RETRY_AFTER))


def _truncated(entry: Entry) -> Entry:
    dropped, content = truncate(entry.content)
    return replace(entry, content=content, dropped_bytes=dropped) if dropped else entry
