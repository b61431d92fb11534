"""Reads of a written log through a reader with a page cache, as a process of its own does them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID, uuid4

from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs_server.bootstrap.service import page_cache
from tasklogs_server.bus.local import LocalBus
from tasklogs_server.domain.names import TaskId, TaskRef
from tasklogs_server.domain.read_plan import Source
from tasklogs_server.domain.synced import StoredState, Synced
from tasklogs_server.reads.pages import PageCache
from tasklogs_server.reads.reader import LogQuery, LogReader
from tasklogs_server.reads.state_checks import StateChecks
from tasklogs_server.reads.tokens import fingerprint
from tasklogs_server.services.task_logs import encode_answer
from tasklogs_server.store import Store
from tests.reads.written_log import WrittenLog


@dataclass
class ScriptedSyncs:
    """Syncs that the test answers: `answer` gets what the read knows."""

    answer: Callable[[StoredState], Awaitable[Synced]] | None = None
    refuted: list[Synced] = field(default_factory=list)
    task_id: UUID = field(default_factory=uuid4)

    def __call__(
        self, task_id: UUID, *, max_staleness: timedelta | None, time_left: timedelta | None
    ) -> ScriptedSyncs:
        self.task_id = task_id
        return self

    def begin(self, known: StoredState) -> None:
        """There is no other process."""

    def close(self) -> None:
        """Nothing was begun."""

    async def done(self, known: StoredState) -> Synced:
        assert self.answer is not None
        return await self.answer(known)

    async def refute(self, synced: Synced) -> None:
        self.refuted.append(synced)


@dataclass
class PageReads:
    """A reader over a store, and what it keeps."""

    store: Store
    bus: LocalBus
    cache: PageCache
    reader: LogReader
    syncs: ScriptedSyncs

    async def read(
        self,
        ref: TaskRef,
        *,
        source: Source = Source.SNAPSHOT,
        tail: int | None = None,
        epoch: int | None = None,
        page_rows: int = 1000,
        page_token: str = "",
        types: tuple[int, ...] = (),
    ) -> pb.GetTaskLogsResponse:
        """Read a page, as GetTaskLogs does."""
        query = LogQuery(
            ref=ref,
            sees_only=ref.owner,
            source=source,
            tail=tail,
            page_rows=page_rows,
            page_bytes=1_000_000,
            page_token=page_token,
            epoch=epoch,
            max_staleness=None,
            fingerprint=lambda: fingerprint(repr((ref, source, tail, epoch, types)).encode()),
            types=types,
        )
        body = await self.reader.read(query, time_left=None)
        return pb.GetTaskLogsResponse.FromString(body)

    async def contents(self, log: WrittenLog, **fields: object) -> list[str]:
        """Read the contents of the log's entries."""
        answer = await self.read(TaskId(log.task_id), **fields)  # type: ignore[arg-type]
        return [one.content for one in answer.logs]

    async def settled(self, log: WrittenLog, **fields: object) -> list[str]:
        """Read until the answer comes from memory, which needs three reads at most."""
        for _ in range(3):
            hits = self.cache.hits
            contents = await self.contents(log, **fields)
            if self.cache.hits > hits:
                return contents
        raise AssertionError("the page is not kept")


@asynccontextmanager
async def page_reads(
    store: Store, bus: LocalBus | None = None, *, limit_bytes: int = 1 << 24
) -> AsyncIterator[PageReads]:
    """A reader over a store of its own process; `bus`: of that process."""
    bus = bus or LocalBus()
    cache, syncs = page_cache(limit_bytes, store, bus), ScriptedSyncs()

    def aside() -> AbstractAsyncContextManager[None]:
        return nullcontext()

    reader = LogReader(
        store.reads,
        StateChecks(store.states),
        cache,
        sync=syncs,
        aside=aside,
        confirmed_at=lambda _, __: None,
        evicted=store.evictions.evicted,
        encode=encode_answer,
        is_current=store.is_current,
    )
    yield PageReads(store, bus, cache, reader, syncs)
