"""Reads of a log: the task's status decides whether a sync comes before the read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol
from uuid import UUID

from tasklogs_server.concurrency.singleflight import Singleflight
from tasklogs_server.domain.errors import (
    AgentUnreachable,
    CursorExpired,
    FieldViolation,
    InvalidFields,
    StoreUnavailable,
)
from tasklogs_server.domain.names import TaskId, TaskRef
from tasklogs_server.domain.read_plan import ReadPlan, Source, plan_earlier_epoch, plan_read
from tasklogs_server.domain.status import StatusDetail, TaskStatus, derive
from tasklogs_server.reads.tokens import Cursor, PageToken
from tasklogs_server.store.errors import RETRY_AFTER
from tasklogs_server.store.generations import Generations
from tasklogs_server.store.log_reads import LogPage, LogReads, PageQuery
from tasklogs_server.store.records import Evicted
from tasklogs_server.telemetry.calls import concerns

MAX_PAGE_ROWS = 1000


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What a caller asks for. `tail` None: all entries; `epoch` None: the current one."""

    ref: TaskRef
    sees_only: str | None
    """The only owner whose tasks the caller may see; None: the tasks of all owners."""
    source: Source
    tail: int | None
    page_rows: int
    page_token: str
    epoch: int | None
    max_staleness: timedelta | None
    fingerprint: Callable[[], bytes]
    """Hashes the arguments that must not change between pages. Called only if there are pages."""
    types: tuple[int, ...] = ()
    """Only entries of these types; empty: all."""


@dataclass(frozen=True, slots=True)
class LogAnswer:
    """A page and its response fields. `encoded` is the encoded field `logs`."""

    encoded: bytes
    snapshot: bool
    snapshot_at: datetime | None
    status: TaskStatus
    epoch: int
    revision: int
    first_id: int | None
    cursor: str
    next_page_token: str
    task_id: str


class Sync(Protocol):
    """Brings the store up to date with the task app."""

    def __call__(
        self, task_id: UUID, *, max_staleness: timedelta | None, time_left: timedelta | None
    ) -> Awaitable[datetime]:
        """Return when the sync began. The store has everything that the task app showed then.

        Raises AgentUnreachable, TaskAppFailed.
        """


class LogReader:
    """Answers reads of logs.

    `sync` brings a task's stored log up to date. A read waits for it within `aside`, where it does
    not count as an active read. `confirmed_at` returns the time up to which the log is known to be
    complete, if that is not in the store yet. `evicted` reads what was evicted.
    """

    def __init__(
        self,
        reads: LogReads,
        *,
        sync: Sync,
        aside: Callable[[], AbstractAsyncContextManager[None]],
        confirmed_at: Callable[[UUID], datetime | None],
        evicted: Callable[[UUID], Awaitable[Evicted]],
        generations: Generations,
        page_bytes: int,
    ) -> None:
        self._reads = reads
        self._sync = sync
        self._aside = aside
        self._confirmed_at = confirmed_at
        self._evicted = evicted
        self._generations = generations
        self._page_bytes = page_bytes
        self._shared: Singleflight[LogPage] = Singleflight()

    async def read(self, query: LogQuery, *, time_left: timedelta | None) -> LogAnswer:
        """Read one page; `time_left` is the time until the caller's deadline.

        Raises TaskNotFound, TaskStateConflict, AgentUnreachable, TaskAppFailed, InvalidFields,
        CursorExpired, StoreUnavailable, LogCorrupt.
        """
        if query.page_token:
            return await self._next_page(query)
        wanted = PageQuery(
            epoch=query.epoch,
            tail=query.tail,
            rows=query.page_rows,
            page_bytes=self._page_bytes,
            types=query.types,
        )
        loop = asyncio.get_running_loop()
        began = loop.time()
        page = await self._page(query.ref, wanted)
        detail = derive(page.facts)
        plan = _plan(page, query, detail)
        if page.first_id is None and page.epoch < page.current_epoch:
            await self._refuse_evicted(page)
        if plan is ReadPlan.SYNC_THEN_READ:
            if time_left is not None:
                time_left -= timedelta(seconds=loop.time() - began)
            task_id = page.task_id
            del page  # it may hold megabytes, and thousands of reads may wait for their agents
            generation = self._generations.current
            unreachable = await self._bring_up_to_date(task_id, query, time_left)
            page = await self._page(query.ref, wanted)
            if self._generations.current != generation:
                # The page may lack what the sync has brought: the store went back in between.
                raise StoreUnavailable(RETRY_AFTER)
            if unreachable is not None:
                # If the task was deleted, was paused or failed meanwhile, its new status decides
                # the response.
                detail = derive(page.facts)
                plan = _plan(page, query, detail)
                if plan is ReadPlan.SYNC_THEN_READ:
                    raise unreachable
        return self._answer(
            page,
            query,
            snapshot=plan is ReadPlan.READ_SNAPSHOT,
            snapshot_at=self._snapshot_at(page),
            status=detail.status,
            revision=page.revision,
        )

    async def _bring_up_to_date(
        self, task_id: UUID, query: LogQuery, time_left: timedelta | None
    ) -> AgentUnreachable | None:
        try:
            async with self._aside():
                await self._sync(task_id, max_staleness=query.max_staleness, time_left=time_left)
        except AgentUnreachable as error:
            return error
        return None

    async def _next_page(self, query: LogQuery) -> LogAnswer:
        token = PageToken.decode(query.page_token, fingerprint=query.fingerprint())
        wanted = PageQuery(
            epoch=token.epoch,
            start=token.start,
            end=token.end,
            rows=query.page_rows,
            page_bytes=self._page_bytes,
            types=query.types,
        )
        page = await self._page(query.ref, wanted)
        if page.task_id != token.task_id:
            await self._refuse_other_task(token.task_id, query)
        if page.has_lost(token.revision):
            raise await self._expired(page.task_id)
        # There were entries before a later page. If none is left, they were evicted.
        is_evicted = page.start > token.start or page.first_id is None
        if is_evicted:
            raise await self._expired(page.task_id)
        return self._answer(
            page,
            query,
            snapshot=token.snapshot,
            snapshot_at=token.snapshot_at,
            status=token.status,
            revision=token.revision,
        )

    async def _refuse_other_task(self, task_id: UUID, query: LogQuery) -> None:
        """Raise TaskNotFound if there is no such task for the caller, else InvalidFields.

        Names are reused: the page token's task may not exist any more.
        """
        nothing = PageQuery(epoch=None, tail=0, rows=1, page_bytes=self._page_bytes)
        await self._reads.page(TaskId(task_id, query.sees_only), nothing)
        raise InvalidFields([FieldViolation("page_token", "is of another task")])

    async def _refuse_evicted(self, page: LogPage) -> None:
        # An earlier epoch without entries was always empty, or its entries were evicted.
        if page.epoch <= (await self._evicted(page.task_id)).epoch:
            raise await self._expired(page.task_id)

    async def _expired(self, task_id: UUID) -> CursorExpired:
        evicted = await self._evicted(task_id)
        return CursorExpired(Cursor(task_id, evicted.revision).encode())

    async def _page(self, ref: TaskRef, wanted: PageQuery) -> LogPage:
        page = await self._shared.run((ref, wanted), partial(self._reads.page, ref, wanted))
        concerns(page.task_id)
        return page

    def _answer(
        self,
        page: LogPage,
        query: LogQuery,
        *,
        snapshot: bool,
        snapshot_at: datetime | None,
        status: TaskStatus,
        revision: int,
    ) -> LogAnswer:
        """Return the response for this page, with what the first page decided.

        `revision` is the log's revision at the first page.
        """
        encoded, next_ordinal = page.entries
        next_page_token = ""
        if next_ordinal < page.end:
            next_page_token = PageToken(
                task_id=page.task_id,
                epoch=page.epoch,
                start=next_ordinal,
                end=page.end,
                revision=revision,
                snapshot=snapshot,
                snapshot_at=snapshot_at,
                status=status,
                fingerprint=query.fingerprint(),
            ).encode()
        return LogAnswer(
            encoded=encoded,
            snapshot=snapshot,
            snapshot_at=snapshot_at,
            status=status,
            epoch=page.epoch,
            revision=page.revision,
            first_id=page.first_id,
            # A follow from this cursor sends what changed since the first page.
            cursor=Cursor(page.task_id, revision).encode(),
            next_page_token=next_page_token,
            task_id=str(page.task_id),
        )

    def _snapshot_at(self, page: LogPage) -> datetime | None:
        known = (page.snapshot_at, self._confirmed_at(page.task_id))
        return max((at for at in known if at is not None), default=None)


def _plan(page: LogPage, query: LogQuery, detail: StatusDetail) -> ReadPlan:
    current = page.current_epoch
    if query.epoch is not None and query.epoch > max(current, 1):
        raise InvalidFields([FieldViolation("epoch", f"the task has {current} epochs")])
    if query.epoch is not None and query.epoch < current:
        return plan_earlier_epoch(detail, query.source)
    return plan_read(detail, query.source)
