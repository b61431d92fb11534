"""Reads of a log: the task's status decides whether a sync comes before the read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import NamedTuple, Protocol
from uuid import UUID

from tasklogs_server.concurrency.singleflight import Singleflight
from tasklogs_server.domain.errors import (
    AgentUnreachable,
    CursorExpired,
    FieldViolation,
    InvalidFields,
)
from tasklogs_server.domain.names import TaskId, TaskRef
from tasklogs_server.domain.read_plan import ReadPlan, Source, plan_earlier_epoch, plan_read
from tasklogs_server.domain.status import TaskStatus
from tasklogs_server.domain.synced import StoredState, Synced
from tasklogs_server.reads.pages import Decided, Page, PageCache, Question
from tasklogs_server.reads.state_checks import StateChecks
from tasklogs_server.reads.tokens import Cursor, PageToken
from tasklogs_server.store.log_reads import LogReads, PageQuery
from tasklogs_server.store.records import Evicted
from tasklogs_server.store.task_states import TaskState
from tasklogs_server.telemetry.calls import concerns

MAX_PAGE_ROWS = 1000


@dataclass(frozen=True)
class LogQuery:
    """What a caller asks for. `tail` None: all entries; `epoch` None: the current one."""

    ref: TaskRef
    sees_only: str | None
    """The only owner whose tasks the caller may see; None: the tasks of all owners."""
    source: Source
    tail: int | None
    page_rows: int
    page_bytes: int
    page_token: str
    epoch: int | None
    max_staleness: timedelta | None
    fingerprint: Callable[[], bytes]
    """Hashes the arguments that must not change between pages. Called only if there are pages."""
    types: tuple[int, ...] = ()
    """Only entries of these types; empty: all."""

    @cached_property
    def question(self) -> Question:
        """What the first page answers."""
        wanted = PageQuery(
            epoch=self.epoch,
            tail=self.tail,
            rows=self.page_rows,
            page_bytes=self.page_bytes,
            types=self.types,
        )
        return self.ref, wanted


@dataclass(frozen=True, slots=True)
class LogAnswer:
    """The fields of a response, without the entries."""

    snapshot: bool
    snapshot_at: datetime | None
    status: TaskStatus
    epoch: int
    revision: int
    first_id: int | None
    cursor: str
    next_page_token: str
    task_id: str


class SyncRequest(Protocol):
    """Brings the store up to date with the task app, for one call."""

    @property
    def task_id(self) -> UUID:
        """The task whose log is brought up to date."""

    def begin(self, known: StoredState) -> None:
        """Begin a sync now if `done` is likely to want one in another process.

        `known`: what an earlier call has found in the store.
        """

    def close(self) -> None:
        """Wait no longer for what `begin` began."""

    def done(self, known: StoredState) -> Awaitable[Synced]:
        """Wait until the store has everything that the task app showed when this was called.

        `known`: what the call has found in the store. Before it is answered, it reads the store
        again. If that does not hold the result, it calls `refute`, and then this again. Raises
        AgentUnreachable, TaskAppFailed.
        """

    def refute(self, synced: Synced) -> Awaitable[None]:
        """End the session of a sync that the store does not hold."""


class Sync(Protocol):
    """Begins requests for a sync."""

    def __call__(
        self, task_id: UUID, *, max_staleness: timedelta | None, time_left: timedelta | None
    ) -> SyncRequest:
        """Begin one: its limits of time are counted from now."""


class _LivePage(NamedTuple):
    """A page after a sync that began at `synced_at`; or why there was none."""

    state: TaskState
    page: Page
    synced_at: datetime | None
    unreachable: AgentUnreachable | None = None


class LogReader:
    """Answers reads of logs.

    `sync` brings tasks' stored logs up to date. A read waits for it within `aside`, where it does
    not count as an active read. `confirmed_at` returns the time up to which a log at a revision is
    known to be complete, if that is not in the store yet. `evicted` reads what was evicted.
    `encode` returns the encoded response without the entries. `is_current` tells whether the store
    is there, and has the history in which a state was found.
    """

    def __init__(
        self,
        reads: LogReads,
        checks: StateChecks,
        cache: PageCache,
        *,
        sync: Sync,
        aside: Callable[[], AbstractAsyncContextManager[None]],
        confirmed_at: Callable[[UUID, int], datetime | None],
        evicted: Callable[[UUID], Awaitable[Evicted]],
        encode: Callable[[LogAnswer], bytes],
        is_current: Callable[[TaskState], bool],
    ) -> None:
        self._reads = reads
        self._checks = checks
        self._cache = cache
        self._sync = sync
        self._aside = aside
        self._confirmed_at = confirmed_at
        self._evicted = evicted
        self._encode = encode
        self._is_current = is_current
        self._shared: Singleflight[tuple[TaskState, Page]] = Singleflight()

    async def read(self, query: LogQuery, *, time_left: timedelta | None) -> bytes:
        """Read one page, and return the encoded response.

        `time_left` is the time until the caller's deadline. Raises TaskNotFound, TaskStateConflict,
        AgentUnreachable, TaskAppFailed, InvalidFields, CursorExpired, StoreUnavailable, LogCorrupt.
        """
        if query.page_token:
            return await self._next_page(query)
        # The way to another process takes as long as the question to the store, or longer.
        ahead = self._sync_ahead(query, time_left)
        try:
            return await self._first_page(query, time_left, ahead)
        finally:
            if ahead is not None:
                ahead.close()

    async def _first_page(
        self, query: LogQuery, time_left: timedelta | None, ahead: SyncRequest | None
    ) -> bytes:
        question = query.question
        loop = asyncio.get_running_loop()
        began = loop.time()
        state, page = await self._page(question)
        plan, status, synced_at = _plan(state, query), state.detail.status, None
        if page.first_id is None and page.epoch < state.epoch:
            await self._refuse_evicted(page)
        if plan is ReadPlan.SYNC_THEN_READ:
            if time_left is not None:
                time_left -= timedelta(seconds=loop.time() - began)
            del page  # it may hold megabytes, and thousands of reads may wait for their agents
            request = ahead
            if request is None or request.task_id != state.task_id:  # the name was reused
                request = self._request(state.task_id, query, time_left)
            state, page, synced_at, unreachable = await self._live_page(question, request, state)
            if unreachable is not None:
                # If the task was deleted, was paused or failed meanwhile, its new status decides
                # the response.
                plan, status = _plan(state, query), state.detail.status
                if plan is ReadPlan.SYNC_THEN_READ:
                    raise unreachable
        decided = Decided(
            plan is ReadPlan.READ_SNAPSHOT,
            self._snapshot_at(state, synced_at),
            status,
            state.revision,
        )
        return self._respond(page, query, decided)

    def _request(self, task_id: UUID, query: LogQuery, time_left: timedelta | None) -> SyncRequest:
        return self._sync(task_id, max_staleness=query.max_staleness, time_left=time_left)

    def _sync_ahead(self, query: LogQuery, time_left: timedelta | None) -> SyncRequest | None:
        """Begin the sync that the last answer to this question suggests. It proves nothing."""
        held = self._cache.find(query.question)
        if held is None or query.epoch is not None or query.source is Source.SNAPSHOT:
            return None
        if held.state.detail.status is not TaskStatus.ACTIVE:
            return None
        request = self._request(held.task_id, query, time_left)
        request.begin(held.state.stored)
        return request

    async def _live_page(
        self, question: Question, request: SyncRequest, known: TaskState
    ) -> _LivePage:
        """Return a page that holds what a sync brought, or any page and why there was no sync.

        `known`: the state that was found after the call came. If the sync brought nothing that it
        lacks, the page of that state is the answer: the store is not asked again.
        """
        while True:
            try:
                async with self._aside():
                    synced = await request.done(known.stored)
            except AgentUnreachable as error:
                return _LivePage(*await self._page(question), None, error)
            has_all = synced.is_held_by(known.stored)
            if has_all and self._is_current(known):
                held = self._cache.find(question)
                if held is not None and held.is_of(known):
                    self._cache.hits += 1
                    return _LivePage(known, held, synced.began_at)
            state, page = await self._page(question, has_changed=not has_all)
            if synced.is_held_by(state.stored):
                return _LivePage(state, page, synced.began_at)
            known = state
            del page
            await request.refute(synced)

    async def _next_page(self, query: LogQuery) -> bytes:
        token = PageToken.decode(query.page_token, fingerprint=query.fingerprint())
        ref, first = query.question
        wanted = replace(first, epoch=token.epoch, tail=None, start=token.start, end=token.end)
        _, page = await self._page((ref, wanted))
        if page.task_id != token.task_id:
            await self._refuse_other_task(token.task_id, query)
        if page.has_lost(token.revision):
            raise await self._expired(page.task_id)
        # There were entries before a later page. If none is left, they were evicted.
        is_evicted = page.start > token.start or page.first_id is None
        if is_evicted:
            raise await self._expired(page.task_id)
        decided = Decided(token.snapshot, token.snapshot_at, token.status, token.revision)
        return self._respond(page, query, decided)

    async def _refuse_other_task(self, task_id: UUID, query: LogQuery) -> None:
        """Raise TaskNotFound if there is no such task for the caller, else InvalidFields.

        Names are reused: the page token's task may not exist any more.
        """
        nothing = PageQuery(epoch=None, tail=0, rows=1)
        await self._reads.page(TaskId(task_id, query.sees_only), nothing)
        raise InvalidFields([FieldViolation("page_token", "is of another task")])

    async def _refuse_evicted(self, page: Page) -> None:
        # An earlier epoch without entries was always empty, or its entries were evicted.
        if page.epoch <= (await self._evicted(page.task_id)).epoch:
            raise await self._expired(page.task_id)

    async def _expired(self, task_id: UUID) -> CursorExpired:
        evicted = await self._evicted(task_id)
        return CursorExpired(Cursor(task_id, evicted.revision).encode())

    async def _page(
        self, question: Question, *, has_changed: bool = False
    ) -> tuple[TaskState, Page]:
        """Return the task's state and the page, as the store had both after this call began.

        `has_changed`: the log is known to have changed since the page was read.
        """
        page = None if has_changed else self._cache.find(question)
        if page is not None and page.is_steady:
            state = await self._checks.state(question[0], page.state)
            if state is None:
                # If this task is the slow one, no page of it delays a check until it was read.
                self._cache.suspect(page.task_id)
            elif page.is_of(state):
                concerns(state.task_id)
                page.state = state
                self._cache.hits += 1
                return state, page
        self._cache.misses += 1
        state, page = await self._shared.run(question, partial(self._read, question))
        concerns(page.task_id)
        return state, page

    async def _read(self, question: Question) -> tuple[TaskState, Page]:
        ref, wanted = question
        read = await self._reads.page(ref, wanted)
        # Not the state of the page: a caller whose check was earlier may note its own there.
        return read.state, self._cache.put(question, Page(read, wanted.types))

    def _respond(self, page: Page, query: LogQuery, decided: Decided) -> bytes:
        return page.response(decided, query, partial(self._encode_rest, query))

    def _encode_rest(self, query: LogQuery, page: Page, decided: Decided) -> bytes:
        next_page_token = ""
        if page.has_next:
            next_page_token = PageToken(
                task_id=page.task_id,
                epoch=page.epoch,
                start=page.next_ordinal,
                end=page.end,
                revision=decided.revision,
                snapshot=decided.snapshot,
                snapshot_at=decided.snapshot_at,
                status=decided.status,
                fingerprint=query.fingerprint(),
            ).encode()
        return self._encode(
            LogAnswer(
                snapshot=decided.snapshot,
                snapshot_at=decided.snapshot_at,
                status=decided.status,
                epoch=page.epoch,
                revision=page.revision,
                first_id=page.first_id,
                # A follow from this cursor sends what changed since the first page.
                cursor=Cursor(page.task_id, decided.revision).encode(),
                next_page_token=next_page_token,
                task_id=str(page.task_id),
            )
        )

    def _snapshot_at(self, state: TaskState, synced_at: datetime | None) -> datetime | None:
        # A later sync may have found more: what it confirmed is not this state.
        latest = state.snapshot_at
        for at in (self._confirmed_at(state.task_id, state.revision), synced_at):
            if at is not None and (latest is None or at > latest):
                latest = at
        return latest


def _plan(state: TaskState, query: LogQuery) -> ReadPlan:
    current = state.epoch
    if query.epoch is not None and query.epoch > max(current, 1):
        epochs = "1 epoch" if current == 1 else f"{current} epochs"
        raise InvalidFields([FieldViolation("epoch", f"the task has {epochs}")])
    if query.epoch is not None and query.epoch < current:
        return plan_earlier_epoch(state.detail, query.source)
    return plan_read(state.detail, query.source)
