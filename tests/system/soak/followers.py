"""Followers of every task, until the end. Records of `followed-KIND.jsonl`, in order:

    status        status
    entries       epoch, changes: [[id, revision, replaces, mark], ...]
    withdrawn     epoch, id, revision
    epoch         epoch, revision
    caught_up
    reconnecting  code, reason;  reconnected
    refused       code, reason: with a time to wait, before the first event; it begins again
    expired       the cursor was refused: the follow begins again, and may be at another revision
    end           error: the follow is over

Events have the `cursor` that they came with.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import assert_never

from tasklogs import (
    CaughtUp,
    EntriesChanged,
    EntryWithdrawn,
    EpochStarted,
    FollowEvent,
    Progress,
    Reconnected,
    Reconnecting,
    StatusChanged,
    TaskLogsClient,
)
from tasklogs.errors import TaskLogsRpcError
from tests.system.soak.contents import mark
from tests.system.soak.journal import Journal

KINDS = {"deltas": True, "whole": False}


class Follower:
    """One follow of the client library, from the beginning of the log."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.revision = 0
        self.is_over = False
        self.is_connected = True

    async def follow(self, client: TaskLogsClient, task: str, *, deltas: bool) -> None:
        """Record every event until cancelled. Begins again when the cursor is refused."""
        while True:
            has_begun = False
            try:
                async for event in client.follow(
                    task, deltas=deltas, on_reconnect=self._connection
                ):
                    has_begun = True
                    self._note(event)
            except TaskLogsRpcError as error:
                if error.reason == "CURSOR_EXPIRED":
                    self._journal.note(kind="expired")
                    self.revision = 0
                    continue
                if not has_begun and error.retry_after is not None:
                    # The client library leaves it to its caller to make the first call again.
                    self._journal.note(kind="refused", code=error.code.name, reason=error.reason)
                    await asyncio.sleep(error.retry_after.total_seconds())
                    continue
                self._journal.note(kind="end", error=repr(error)[:500])
            except Exception as error:
                self._journal.note(kind="end", error=repr(error)[:500])
            else:
                self._journal.note(kind="end", error="the iteration ended")
            self.is_over = True
            return

    def _connection(self, change: Reconnecting | Reconnected) -> None:
        self.is_connected = isinstance(change, Reconnected)
        if isinstance(change, Reconnecting):
            code, reason = change.error.code.name, change.error.reason
            self._journal.note(kind="reconnecting", code=code, reason=reason)
        else:
            self._journal.note(kind="reconnected")

    def _note(self, event: FollowEvent) -> None:
        cursor = event.cursor
        match event:
            case StatusChanged(status=status):
                self._journal.note(kind="status", status=status.name, cursor=cursor)
            case EntriesChanged(epoch=epoch, changes=changes):
                rows = [
                    [one.entry.id, one.entry.revision, one.replaces, mark(one.entry.content)]
                    for one in changes
                ]
                self._journal.note(kind="entries", epoch=epoch, changes=rows, cursor=cursor)
                self.revision = changes[-1].entry.revision
            case EntryWithdrawn(epoch=epoch, id=entry_id, revision=revision):
                self._journal.note(
                    kind="withdrawn", epoch=epoch, id=entry_id, revision=revision, cursor=cursor
                )
                self.revision = revision
            case EpochStarted(epoch=epoch, revision=revision):
                self._journal.note(kind="epoch", epoch=epoch, revision=revision, cursor=cursor)
                self.revision = revision
            case CaughtUp():
                self._journal.note(kind="caught_up", cursor=cursor)
            case Progress():
                self._journal.note(kind="progress", cursor=cursor)
            case _:
                assert_never(event)


@asynccontextmanager
async def following(address: str, task: str, directory: Path) -> AsyncIterator[list[Follower]]:
    """Follow a task with and without deltas, over one connection."""
    followers = []
    async with TaskLogsClient(address) as client:
        running = set()
        for kind, deltas in KINDS.items():
            follower = Follower(Journal(directory / f"followed-{kind}.jsonl"))
            followers.append(follower)
            running.add(asyncio.create_task(follower.follow(client, task, deltas=deltas)))
        try:
            yield followers
        finally:
            for task_ in running:
                task_.cancel()
            await asyncio.wait(running)
