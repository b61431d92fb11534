"""Follows over a real store. A test can count reads, stop them and let them fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs_server.bus.local import LocalBus
from tasklogs_server.domain.errors import StoreUnavailable
from tasklogs_server.domain.names import TaskId
from tasklogs_server.domain.read_plan import Source
from tasklogs_server.domain.status import (
    AgentLifecycle,
    AppHealth,
    BuildTransition,
    Facts,
    JobStatus,
)
from tasklogs_server.domain.synced import StoredState, Synced
from tasklogs_server.limits.tail_budget import TailBudget
from tasklogs_server.reads import feed
from tasklogs_server.reads.follow_encoding import encode_compressed, encode_event
from tasklogs_server.reads.follow_events import FollowEvent
from tasklogs_server.reads.follow_query import FollowQuery
from tasklogs_server.reads.follower import Follows
from tasklogs_server.reads.send_budget import SendBudget
from tasklogs_server.reads.tokens import Cursor
from tasklogs_server.store import Store
from tasklogs_server.store.log_changes import Changes, LogChanges
from tests.reads.follow_reader import Reader, reading
from tests.reads.follow_view import View
from tests.reads.written_log import WrittenLog
from tests.support.fixtures.conditions import until

PAUSED = Facts(1, BuildTransition.STOP, JobStatus.SUCCEEDED, None, None)
ACTIVE = Facts(
    1, BuildTransition.START, JobStatus.SUCCEEDED, AgentLifecycle.READY, AppHealth.HEALTHY
)
FAILED = Facts(1, BuildTransition.START, JobStatus.FAILED, None, None)


class WatchedChanges(LogChanges):
    """The store's reads of changes, which a test counts, stops and lets fail."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.changes._connections, store.changes._lease_terms)
        self.of_feeds = 0
        self.of_followers = 0
        self.is_away = False
        self.refusals: asyncio.Queue[None] = asyncio.Queue()
        self.feeds_read = asyncio.Event()
        self.feeds_read.set()
        self.follower_asked = asyncio.Event()
        self.followers_read = asyncio.Event()
        self.followers_read.set()

    async def since(self, task_id: UUID, revision: int, **how: Any) -> Changes:
        """Read. Only a feed passes the revision of the tail that it holds."""
        if "held_revision" in how:
            self.of_feeds += 1
            await self.feeds_read.wait()
        else:
            self.of_followers += 1
            self.follower_asked.set()
            await self.followers_read.wait()
        if self.is_away:
            self.refusals.put_nowait(None)
            raise StoreUnavailable(timedelta(seconds=1))
        return await super().since(task_id, revision, **how)


@dataclass
class ScriptedSync:
    """A sync with an outcome that the test sets."""

    calls: int = 0
    failures: list[Exception] = field(default_factory=list)
    log: WrittenLog | None = None
    task_id: UUID = field(default_factory=uuid4)
    held: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.held.set()

    def __call__(
        self, task_id: UUID, *, max_staleness: timedelta | None, time_left: timedelta | None
    ) -> ScriptedSync:
        """Begin a request: all share this script."""
        self.task_id = task_id
        return self

    def begin(self, known: StoredState) -> None:
        """Fail: a follow begins no sync ahead."""
        raise AssertionError

    def close(self) -> None:
        """Nothing was begun."""

    async def done(self, known: StoredState) -> Synced:
        """Raise each of the failures once, then return what the store holds."""
        self.calls += 1
        await self.held.wait()
        if self.failures:
            raise self.failures.pop(0)
        return Synced(datetime.now(UTC), known.fence, known.revision)

    async def refute(self, synced: Synced) -> None:
        """Fail: the store holds what this script returns."""
        raise AssertionError(f"the store does not hold {synced}")


@dataclass
class World:
    """A log, and the follows of it."""

    store: Store
    bus: LocalBus
    log: WrittenLog
    changes: WatchedChanges
    sync: ScriptedSync
    follows: Follows
    tails: TailBudget
    encoded: list[FollowEvent]
    """The events that feeds encoded, each once for all followers."""

    @asynccontextmanager
    async def following(
        self, *, view: View | None = None, log: WrittenLog | None = None, **query: Any
    ) -> AsyncIterator[Reader]:
        """Follow the log, or another."""
        stream = self.stream(log, **query)
        async with aclosing(stream), reading(decoded(stream), view) as reader:
            yield reader

    def stream(self, log: WrittenLog | None = None, **query: Any) -> AsyncGenerator[bytes, None]:
        """Begin a follow. The default source is SNAPSHOT."""
        cursor, budget = query.pop("cursor", None), query.pop("budget", None)
        asked = FollowQuery(
            ref=TaskId((log or self.log).task_id),
            sees_only=None,
            source=query.pop("source", Source.SNAPSHOT),
            tail=query.pop("tail", None),
            cursor=Cursor.decode(cursor) if isinstance(cursor, str) else cursor,
            deltas=query.pop("deltas", False),
            types=query.pop("types", ()),
            progress_interval=query.pop("progress_interval", None),
        )
        assert not query
        return self._messages(asked, budget)

    async def _messages(
        self, asked: FollowQuery, budget: SendBudget | None
    ) -> AsyncGenerator[bytes, None]:
        async with self.follows.following(asked, budget) as messages:
            async for message in messages:
                yield message

    @property
    def open_feeds(self) -> int:
        """How many tasks are followed."""
        return len(self.follows._feeds)


@asynccontextmanager
async def followed(database: str, *, progress_after: timedelta) -> AsyncIterator[World]:
    """Make a world. Check at the end that no task or feed of it is left."""
    store = await Store.open(database, read_connections=4, lease=timedelta(seconds=30))
    counting = pytest.MonkeyPatch()
    try:
        bus, encoded = LocalBus(), list[FollowEvent]()

        def encode(cursor: str, event: FollowEvent, *, as_delta: bool) -> bytes:
            encoded.append(event)
            return encode_event(cursor, event, as_delta=as_delta)

        def compress(cursor: Cursor, event: FollowEvent, *, as_delta: bool) -> bytes:
            encoded.append(event)
            return encode_compressed(cursor, event, as_delta=as_delta)

        counting.setattr(feed, "encode_event", encode)
        counting.setattr(feed, "encode_compressed", compress)

        changes, sync, tails = WatchedChanges(store), ScriptedSync(), TailBudget(256 << 20)
        follows = Follows(
            changes,
            bus,
            sync=sync,
            lease=timedelta(seconds=30),
            generations=store.generations,
            progress_after=progress_after,
            tails=tails,
        )
        log = await WrittenLog.open(store, bus)
        before = asyncio.all_tasks()
        world = World(store, bus, log, changes, sync, follows, tails, encoded)
        yield world
        assert world.open_feeds == 0
        # A statement that was cancelled ends soon, and its task with it.
        await until(lambda: asyncio.all_tasks() - before <= {asyncio.current_task()})
    finally:
        counting.undo()
        await store.close()


async def decoded(stream: AsyncIterator[bytes]) -> AsyncIterator[pb.FollowTaskLogsResponse]:
    """Decode messages as a client does."""
    async for one in stream:
        yield pb.FollowTaskLogsResponse.FromString(one)
