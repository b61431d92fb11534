"""Collects the events of a follow and checks each one against what the client promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import assert_never

from tasklogs import (
    CaughtUp,
    EntriesChanged,
    EntryWithdrawn,
    EpochStarted,
    FollowEvent,
    LogEntry,
    Progress,
    Reconnected,
    Reconnecting,
    StatusChanged,
    TaskLogsClient,
    TaskStatus,
)
from tasklogs.client.events import EntryChange
from tests.conformance.drivers import Driver
from tests.support.fixtures.conditions import DEADLINE_SECONDS

Key = tuple[int, int]
"""Epoch and entry id."""


@dataclass
class Followed:
    """The log as the reader of a follow knows it."""

    entries: dict[Key, LogEntry] = field(default_factory=dict)
    states: dict[Key, list[str]] = field(default_factory=dict)
    """Every content that each entry has had, in order."""
    statuses: list[TaskStatus] = field(default_factory=list)
    """Without repeats: an event that changes only a layer's facts adds nothing."""
    epochs: list[int] = field(default_factory=list)
    caught_up: bool = False
    revision: int = 0
    events: int = 0
    changes: int = 0
    breaks: int = 0
    reconnects: int = 0
    reads_on: asyncio.Event = field(default_factory=asyncio.Event)
    error: BaseException | None = None
    _heard: asyncio.Event = field(default_factory=asyncio.Event)

    def connection(self, change: Reconnecting | Reconnected) -> None:
        """Count what `on_reconnect` is told."""
        self.broken(continues=isinstance(change, Reconnected))

    def broken(self, *, continues: bool) -> None:
        """Count a break, or that the follow continues after one."""
        if continues:
            self.reconnects += 1
        else:
            self.breaks += 1

    def apply(self, event: FollowEvent) -> None:
        """Apply an event. Fail if it breaks a promise."""
        self.events += 1
        match event:
            case StatusChanged(status=status):
                if self.statuses[-1:] != [status]:
                    self.statuses.append(status)
            case EntriesChanged(epoch=epoch, changes=changes):
                for change in changes:
                    self._change(epoch, change)
            case EntryWithdrawn(epoch=epoch, id=entry_id, revision=revision):
                self._ascend(revision)
                self.entries.pop((epoch, entry_id), None)
            case EpochStarted(epoch=epoch, revision=revision):
                self._ascend(revision)
                self.epochs.append(epoch)
            case CaughtUp():
                assert not self.caught_up, "CaughtUp came twice in one follow"
                self.caught_up = True
            case Progress():
                raise AssertionError("Progress came, but nobody asked for it")
            case _:
                assert_never(event)

    async def read(self, events: AsyncIterator[FollowEvent]) -> None:
        """Read events while `reads_on` is set. Keep the error that ends the follow as `error`."""
        try:
            while True:
                await self.reads_on.wait()
                self.apply(await anext(events))
                self._wake()
        except BaseException as error:
            self.error = error
            self._wake()
            if isinstance(error, asyncio.CancelledError):
                raise

    async def wait_for(
        self, condition: Callable[[], bool], *, seconds: float = DEADLINE_SECONDS
    ) -> None:
        """Wait until the events make `condition` true. Fail if the follow ends first."""
        async with asyncio.timeout(seconds):
            while not condition():
                if self.error is not None:
                    raise AssertionError("the follow ended") from self.error
                self._heard.clear()
                await self._heard.wait()

    async def next_change(self, *, seconds: float = DEADLINE_SECONDS) -> None:
        """Wait for the next change of the log."""
        known = self.revision
        await self.wait_for(lambda: self.revision > known, seconds=seconds)

    async def reached(self, revision: int, *, seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until every change up to a revision was yielded."""
        await self.wait_for(lambda: self.revision >= revision, seconds=seconds)

    async def until_caught_up(self) -> None:
        """Wait for CaughtUp."""
        await self.wait_for(lambda: self.caught_up)

    def of_epoch(self, epoch: int) -> dict[int, LogEntry]:
        """Return the entries of an epoch by id."""
        return {entry_id: one for (of, entry_id), one in self.entries.items() if of == epoch}

    def _change(self, epoch: int, change: EntryChange) -> None:
        key, entry = (epoch, change.entry.id), change.entry
        self._ascend(entry.revision)
        before = self.entries.get(key)
        assert change.replaces == (None if before is None else before.revision)
        if before is not None and not entry.dropped_bytes:
            if change.appended is not None:
                assert entry.content == before.content + change.appended
            assert entry.content[: change.kept] == before.content[: change.kept]
        self.changes += 1
        self.entries[key] = entry
        self.states.setdefault(key, []).append(entry.content)

    def _ascend(self, revision: int) -> None:
        assert revision > self.revision, "a revision is not above the one before"
        self.revision = revision

    def _wake(self) -> None:
        self._heard.set()


@asynccontextmanager
async def following(
    client: TaskLogsClient, task: str, *, deltas: bool = True
) -> AsyncIterator[Followed]:
    """Follow a task in one call of the client library."""
    followed = Followed()
    async with (
        client.follow(task, deltas=deltas, on_reconnect=followed.connection) as events,
        _reading(followed, events),
    ):
        yield followed


@asynccontextmanager
async def following_elsewhere(driver: Driver, address: str, task: str) -> AsyncIterator[Followed]:
    """Follow a task in one call of the client library of another language."""
    followed = Followed()
    events = driver.events(
        address,
        lambda continues: followed.broken(continues=continues),
        task=task,
        first_wait_ms=200,
        most_wait_ms=10_000,
    )
    async with _reading(followed, events):
        yield followed


@asynccontextmanager
async def _reading(followed: Followed, events: AsyncIterator[FollowEvent]) -> AsyncIterator[None]:
    followed.reads_on.set()
    reading = asyncio.create_task(followed.read(events), name="follow is read")
    try:
        yield
    finally:
        reading.cancel()
        await asyncio.wait({reading})
    if followed.error is not None and not isinstance(followed.error, asyncio.CancelledError):
        raise AssertionError("the follow ended") from followed.error
