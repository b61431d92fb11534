"""What sessions need of the store, as a dictionary that checks each commit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from tasklogs.log.entry import Entry, EntryType, Names, Time
from tasklogs.v1 import task_logs_pb2
from tasklogs_server.domain.errors import SessionSuperseded, StoreUnavailable
from tasklogs_server.domain.status import Facts
from tasklogs_server.store.evictions import EvictionOutcome, Holding, LogLimits
from tasklogs_server.store.log_writes import Lane, Outcome
from tasklogs_server.store.records import Commit, EntryRow, EpochOpened, Evicted, LogHead
from tasklogs_server.store.session_audit import AuditedTask, HeldSession
from tasklogs_server.store.sessions import Opening
from tests.fuzz.targets.log_model import LogModel
from tests.ingest.histories import ModelStore

_SECOND = timedelta(seconds=1)


class MemoryStore:
    """One task. `troubles` are the outcomes of the next commits. Without any, commits succeed."""

    def __init__(self, token_hash: bytes, *, standalone: bool) -> None:
        self.troubles: deque[Outcome | Exception] = deque()
        self.states = [LogModel()]
        """What readers could see after each commit."""
        self.broken: list[Exception] = []
        """Rules that commits broke. The group commit takes an exception for a store in trouble."""
        self._token_hash = token_hash
        self._standalone = standalone
        self._fence = 0
        self._serial = 0
        self._is_connected = False
        self._rows = ModelStore()
        self._epochs_opened = 0
        self._facts = Facts(None, None, None, None, None)

    # Sessions

    async def open_session(
        self,
        task_id: UUID,
        *,
        serial: int,
        admit: Callable[[int | None], None],
        connect: Callable[[Facts], Facts] | None,
    ) -> Opening:
        await asyncio.sleep(0)
        admit(self._facts.build_number)
        if self._standalone and connect is not None:
            self._facts = connect(self._facts)
        assert serial > self._serial, "each handshake has a higher one"
        self._serial = serial
        self._is_connected = True
        return self._raise_fence()

    async def open_upload(self, task_id: UUID) -> Opening:
        await asyncio.sleep(0)
        return self._raise_fence()

    async def is_prefix(
        self, task_id: UUID, epoch: int, entries: Sequence[Entry], *, generation: str
    ) -> bool:
        await asyncio.sleep(0)
        return self.states[-1].epochs[epoch - 1][: len(entries)] == tuple(entries)

    async def open_serials(self, last: int, *, but_for: Collection[int]) -> Sequence[int]:
        await asyncio.sleep(0)
        is_asked_for = self._serial <= last and self._serial not in but_for
        return [self._serial] if self._is_connected and is_asked_for else []

    async def lose_sessions(self, serials: Collection[int]) -> Collection[int]:
        await asyncio.sleep(0)
        if self._serial in serials:
            self._is_connected = False
        return ()

    async def audit(self, held: Sequence[HeldSession]) -> Sequence[AuditedTask]:
        await asyncio.sleep(0)
        return [
            AuditedTask(
                task_id=one.task_id,
                fence=one.fence,
                is_deleted=False,
                is_behind=False,
                session_fence=self._fence,
                start_build=None,
                token_hash=self._token_hash,
            )
            for one in held
            if one.fence != self._fence
        ]

    async def epochs_in_the_last_hour(self, task_id: UUID) -> int:
        await asyncio.sleep(0)
        return self._epochs_opened

    async def tail_content(self, task_id: UUID) -> bytes:
        await asyncio.sleep(0)
        return self._rows.tail_content()

    def _raise_fence(self) -> Opening:
        self._fence += 1
        head = self._rows.head
        if head.tail is not None:
            content, parts = self._rows.tail_content(), len(self._rows.parts)
            return Opening(self._fence, head, content, self._standalone, tail_parts=parts)
        current = self.states[-1].epochs[-1:]
        last_id = current[0][-1].id if current and current[0] else -1
        return Opening(self._fence, head, None, self._standalone, last_id)

    # Tasks

    async def token_hash(self, task_id: UUID) -> bytes | None:
        await asyncio.sleep(0)
        return self._token_hash

    async def change_facts(
        self, task_id: UUID, change: Callable[[Facts], Facts], *, fence: int | None = None
    ) -> None:
        await asyncio.sleep(0)
        if fence is not None and fence != self._fence:
            raise SessionSuperseded
        self._facts = change(self._facts)

    # LogWrites

    async def locked_heads(self, _: Sequence[UUID]) -> Collection[UUID]:
        return ()

    async def commit(
        self, commits: Sequence[Commit], lane: Lane = Lane.BATCHES
    ) -> dict[UUID, Outcome]:
        await asyncio.sleep(0)
        trouble = self.troubles.popleft() if self.troubles else None
        if isinstance(trouble, Exception):
            if isinstance(trouble, StoreUnavailable):  # the outcome is unknown
                self._write(commits)
            raise trouble
        if trouble is not None:
            return {one.task_id: trouble for one in commits}
        return self._write(commits)

    async def fold(
        self, task_id: UUID, *, generation: str, fence: int, revision: int, row: EntryRow
    ) -> None:
        await asyncio.sleep(0)
        head = self._rows.head
        if (fence, revision) == (self._fence, head.revision) and head.tail is not None:
            assert row.content == self._rows.tail_content()
            self._rows.rows[row.epoch, row.ordinal] = (row.revision, row.head, row.content)
            self._rows.parts.clear()
            self._rows.head = replace(head, tail=replace(head.tail, part_bytes=0))
            assert self._read() == self.states[-1]

    async def confirm(self, confirmed: Sequence[tuple[UUID, int, datetime]]) -> Collection[UUID]:
        await asyncio.sleep(0)
        return ()

    # Evictions

    async def evict(self, task_id: UUID, limits: LogLimits, *, rows: int, bytes_: int) -> Holding:
        await asyncio.sleep(0)
        head = self._rows.head
        return Holding(EvictionOutcome.NOTHING, head.rows, head.bytes, Evicted())

    async def old_in(self, task_id: UUID, min_retention: timedelta) -> timedelta | None:
        await asyncio.sleep(0)
        return _SECOND

    @property
    def head(self) -> LogHead:
        return self._rows.head

    @property
    def is_connected(self) -> bool:
        return self._is_connected

    @property
    def fence(self) -> int:
        return self._fence

    def _write(self, commits: Sequence[Commit]) -> dict[UUID, Outcome]:
        try:
            return self._written(commits)
        except Exception as error:
            self.broken.append(error)
            raise

    def _written(self, commits: Sequence[Commit]) -> dict[UUID, Outcome]:
        [commit] = commits
        if commit.fence != self._fence:
            return {commit.task_id: Outcome.FENCED}
        if commit.base_revision != self._rows.head.revision:
            return {commit.task_id: Outcome.MOVED}
        self._rows.apply(commit)
        self._epochs_opened += sum(isinstance(one, EpochOpened) for one in commit.events)
        self.states.append(self._read())
        self._check_counts(self.states[-1])
        return {commit.task_id: Outcome.COMMITTED}

    def _read(self) -> LogModel:
        """Decode the stored log as clients do."""
        head = self._rows.head
        epochs: list[list[Entry]] = [[] for _ in range(head.epoch)]
        for (epoch, _), (revision, encoded, content) in sorted(self._rows.rows.items()):
            [read] = task_logs_pb2.GetTaskLogsResponse.FromString(encoded + content).logs
            assert read.revision == revision
            epochs[epoch - 1].append(
                Entry(
                    id=read.id,
                    type=EntryType(read.type),
                    time=Time(read.time.seconds, read.time.nanos),
                    content=read.content.encode(),
                    dropped_bytes=read.dropped_bytes,
                    names=Names(read.source_id, read.name, read.call_id),
                )
            )
        if self._rows.parts:
            assert head.tail is not None
            content = self._rows.tail_content()
            content.decode()
            last = epochs[-1][-1]
            epochs[-1][-1] = replace(last, content=content, time=head.tail.time)
        return LogModel(tuple(tuple(one) for one in epochs), has_tail=head.tail is not None)

    def _check_counts(self, log: LogModel) -> None:
        head = self._rows.head
        assert head.entries == log.entries
        assert head.digest == log.digest
        assert head.bytes == sum(len(one.content) for epoch in log.epochs for one in epoch)
        entries = sum(len(epoch) for epoch in log.epochs)
        assert head.rows == entries + self._rows.events, "rows must be entries and events"
