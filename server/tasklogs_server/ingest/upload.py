"""Uploads of whole conversations, for agents without a stream. They follow the same rules."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from tasklogs.log import digest
from tasklogs.log.append import Append
from tasklogs.log.continuation import Verdict, compare
from tasklogs.log.entry import Entry
from tasklogs.log.truncation import truncate
from tasklogs_server.domain.errors import SessionOpen, StoreUnavailable
from tasklogs_server.ingest.draft import Draft
from tasklogs_server.ingest.messages import cost_bytes
from tasklogs_server.ingest.session import SessionResources, position_of
from tasklogs_server.ingest.sessions import Sessions
from tasklogs_server.store.records import Commit, LogHead
from tasklogs_server.store.sessions import Opening, SessionStore

_RETRY_AFTER = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Stored:
    """The state of the log after an upload."""

    snapshot_at: datetime
    revision: int


class Uploads:
    """Stores whole conversations."""

    def __init__(
        self, resources: SessionResources, *, store: SessionStore, sessions: Sessions
    ) -> None:
        self._resources = resources
        self._store = store
        self._sessions = sessions

    async def upload(
        self,
        task_id: UUID,
        entries: Sequence[Entry],
        *,
        still_opens: Callable[[], Awaitable[None]] | None = None,
    ) -> Stored:
        """Store `entries`, the task app's whole list.

        `still_opens` raises if the agent's token was rotated after it was checked. A later rotation
        raises the fence. Raises SessionOpen while an agent stream is open, LimitExceeded if the
        task opened too many epochs, LogFull, and SessionSuperseded if another upload, a stream or a
        rotation raised the fence meanwhile.
        """
        received_at = self._resources.clock()
        if self._sessions.find(task_id) is not None:
            raise SessionOpen
        opening = await self._store.open_upload(task_id)
        if still_opens is not None:
            await still_opens()
        append = await self._difference(task_id, opening, [_truncated(one) for one in entries])
        if append is None:
            return Stored(opening.head.snapshot_at or received_at, opening.head.revision)
        await self._evict_for(task_id, opening.head, append)
        budget, size_bytes = self._resources.budget, cost_bytes(append)
        await budget.acquire(size_bytes)
        try:
            writer = _UploadWriter(task_id, opening, append, received_at)
            self._resources.group_commit.submit(writer)
            return await writer.stored
        finally:
            budget.release(size_bytes)

    async def _difference(
        self, task_id: UUID, opening: Opening, entries: Sequence[Entry]
    ) -> Append | None:
        if await self._is_held(task_id, opening, entries):
            return None
        stored = position_of(opening.head, opening.tail_content)
        # The task app may have restarted since the last upload.
        match compare(entries, stored, restarted=True):
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
            return await self._store.is_prefix(task_id, head.epoch, entries)
        last = entries[-1]
        return (
            tail is not None
            and content is not None
            and (last.id, last.type, last.names) == (tail.id, tail.type, tail.names)
            and last.time <= tail.time
            and last.dropped_bytes == tail.dropped_bytes
            and content.startswith(last.content)
            and digest.seal_all(entries[:-1]) == head.digest
        )


class _UploadWriter:
    """One commit, and the future that waits for it."""

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
