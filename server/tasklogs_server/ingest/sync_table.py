"""The syncs of one session: which are under way, and when the last one began."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from tasklogs_server.domain.errors import TaskLogsError
from tasklogs_server.domain.synced import Synced


@dataclass(slots=True)
class SyncUnderWay:
    """A sync that the agent was asked for.

    `rests_on`: the sequence number of the last append before the agent's answer. None: there is no
    answer yet. The sync is done when that append is committed.
    """

    id: int
    done: asyncio.Future[None]
    rests_on: int | None = None


class SyncTable:
    """Syncs by their ids, which count from 1 in each session."""

    def __init__(self) -> None:
        self.last: Synced | None = None
        """The completed sync that began last."""
        self.last_began: float | None = None
        """When it began on the monotonic clock, in seconds: its age is computed from that."""
        self.under_way: dict[int, SyncUnderWay] = {}
        """By id."""
        self._last_id = 0

    def begin(self) -> SyncUnderWay:
        """Add a sync. The caller calls `forget` at the end."""
        self._last_id += 1
        done = asyncio.get_running_loop().create_future()
        added = self.under_way[self._last_id] = SyncUnderWay(self._last_id, done)
        return added

    def forget(self, sync_id: int) -> None:
        """Remove a sync, whether or not it is done."""
        del self.under_way[sync_id]

    def completed(self, synced: Synced, began_monotonic: float) -> None:
        """Note a completed sync. The wall clock may have been set back meanwhile."""
        if self.last is None or self.last_began is None:
            self.last, self.last_began = synced, began_monotonic
        elif began_monotonic >= self.last_began:
            began_at = max(self.last.began_at, synced.began_at)
            self.last, self.last_began = replace(synced, began_at=began_at), began_monotonic

    def answered(self, sync_id: int, *, rests_on: int, acked: int) -> None:
        """Note the agent's answer. An unknown id belongs to a sync that was removed."""
        under_way = self.under_way.get(sync_id)
        if under_way is not None:
            under_way.rests_on = rests_on
            self.acked(acked)

    def acked(self, sequence: int) -> None:
        """Complete the syncs that rest on appends up to `sequence`, which is committed."""
        for one in self.under_way.values():
            if one.rests_on is not None and one.rests_on <= sequence and not one.done.done():
                one.done.set_result(None)

    def failed(self, sync_id: int, error: TaskLogsError) -> None:
        """Fail a sync with `error`."""
        under_way = self.under_way.get(sync_id)
        if under_way is not None:
            _fail(under_way, error)

    def fail_all(self, error: TaskLogsError) -> None:
        """Fail all syncs with `error`."""
        for one in self.under_way.values():
            _fail(one, error)


def _fail(under_way: SyncUnderWay, error: TaskLogsError) -> None:
    if not under_way.done.done():
        under_way.done.set_exception(error)
        under_way.done.exception()  # retrieve it: perhaps no reader waits any more
