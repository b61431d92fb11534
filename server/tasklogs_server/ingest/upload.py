"""Whole conversations at once, for agents that cannot keep a stream: the same store and rules."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from tasklogs.log import digest
from tasklogs.log.continuation import Verdict, compare
from tasklogs.log.entry import Entry
from tasklogs.log.truncation import truncate
from tasklogs_server.domain.errors import SessionOpen, StoreUnavailable
from tasklogs_server.ingest.draft import Draft
from tasklogs_server.ingest.group_commit import Committer
from tasklogs_server.ingest.log_limits import Room
from tasklogs_server.ingest.messages import Append
from tasklogs_server.ingest.session import position_of
from tasklogs_server.ingest.sessions import Sessions
from tasklogs_server.limits.ingest_budget import IngestBudget
from tasklogs_server.store.records import Commit, LogHead
from tasklogs_server.store.sessions import Opening, SessionStore

_RETRY_AFTER = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Stored:
    """How the log stands after an upload."""

    snapshot_at: datetime
    revision: int


class Uploads:
    """Stores snapshots of conversations."""

    def __init__(
        self,
        store: SessionStore,
        sessions: Sessions,
        committer: Committer,
        budget: IngestBudget,
        room: Room,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._committer = committer
        self._budget = budget
        self._room = room
        self._clock = clock

    async def upload(
        self,
        task_id: UUID,
        entries: Sequence[Entry],
        *,
        still_opens: Callable[[], Awaitable[None]] | None = None,
    ) -> Stored:
        """Make the stored log hold `entries`, the task app's whole list.

        `still_opens` raises where the agent's token was rotated since it was looked at; a rotation
        after that raises the fence. Raises SessionOpen while an agent stream is open, LimitExceeded
        where the task opened too many epochs, LogFull, SessionSuperseded where another upload, a
        stream or a rotation came in between.
        """
        received_at = self._clock()
        if self._sessions.find(task_id) is not None:
            raise SessionOpen
        opening = await self._store.open_upload(task_id)
        if still_opens is not None:
            await still_opens()
        append = await self._difference(task_id, opening, [_truncated(one) for one in entries])
        if append is None:
            return Stored(opening.head.snapshot_at or received_at, opening.head.revision)
        await self._make_room(task_id, opening.head, append)
        await self._budget.acquire(append.size_bytes)
        try:
            writer = _UploadWriter(task_id, opening, append, received_at)
            self._committer.submit(writer)
            return await writer.stored
        finally:
            self._budget.release(append.size_bytes)

    async def _difference(
        self, task_id: UUID, opening: Opening, entries: Sequence[Entry]
    ) -> Append | None:
        if await self._is_held(task_id, opening, entries):
            return None
        stored = position_of(opening.head, opening.tail_content)
        # Nothing is known of the task app since the last upload: it may have restarted.
        match compare(entries, stored, restarted=True):
            case Verdict.CONTINUES:
                return Append(1, entries=entries[stored.sealed :])
            case Verdict.WITHDRAWS_TAIL | Verdict.OPENS_EPOCH:
                await self._sessions.limit_epochs(task_id)
                return Append(1, open_epoch=True, entries=entries)

    async def _make_room(self, task_id: UUID, head: LogHead, append: Append) -> None:
        rows, bytes_ = append.most_rows, append.content_bytes
        held_rows = head.rows - head.evicted.rows
        if not self._room.fits(held_rows + rows, head.held_bytes + bytes_):
            await self._room.make(task_id, rows, bytes_)

    async def _is_held(self, task_id: UUID, opening: Opening, entries: Sequence[Entry]) -> bool:
        """Whether all of `entries` is stored: a prefix, or the tail at an earlier moment."""
        head = opening.head
        if not entries:
            return True
        if len(entries) > head.entries or head.epoch == 0:
            return False
        tail, content = head.tail, opening.tail_content
        sealed = head.entries if tail is None else head.entries - 1
        if len(entries) <= sealed:
            return await self._store.is_prefix(task_id, head.epoch, entries)
        last = entries[-1]
        return (
            tail is not None
            and content is not None
            and (last.id, last.type) == (tail.id, tail.type)
            and last.time <= tail.time
            and last.dropped_bytes == tail.dropped_bytes
            and content.startswith(last.content)
            and digest.seal_all(entries[:-1]) == head.digest
        )


class _UploadWriter:
    """One commit, and whoever waits for it."""

    def __init__(
        self, task_id: UUID, opening: Opening, append: Append, received_at: datetime
    ) -> None:
        self.stored: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        self._task_id = task_id
        self._fence = opening.fence
        self._received_at = received_at
        self._draft = Draft(
            opening.head, opening.tail_content, last_sealed_id=opening.last_sealed_id
        )
        self._draft.apply(append)

    def take(self) -> Commit | None:
        return self._draft.take(self._task_id, self._fence, self._received_at)

    def committed(self, commit: Commit) -> None:
        if not self.stored.done():
            self.stored.set_result(Stored(self._received_at, commit.head.revision))

    def lost(self, error: Exception) -> None:
        if not self.stored.done():
            self.stored.set_exception(error)

    def undecided(self) -> None:
        # Uploading the same again changes nothing where it was stored.
        self.lost(StoreUnavailable(_RETRY_AFTER))


def _truncated(entry: Entry) -> Entry:
    dropped, content = truncate(entry.content)
    return Entry(entry.id, entry.type, entry.time, content, dropped) if dropped else entry
