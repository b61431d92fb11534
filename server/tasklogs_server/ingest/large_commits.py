"""Commits that are too large for the group commit: every agent's next commit would wait for one."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from tasklogs_server.bus.interface import Bus
from tasklogs_server.bus.notes import Moved
from tasklogs_server.ingest.batches import error_of
from tasklogs_server.store.errors import row_held
from tasklogs_server.store.log_writes import LogWrites, Outcome
from tasklogs_server.store.records import Commit
from tasklogs_server.store.task_transactions import retry_while_held
from tasklogs_server.telemetry.observer import Observer


class LargeCommits:
    """Writes many commits of one task together, on a connection of their own."""

    def __init__(self, writes: LogWrites, bus: Bus, *, observer: Observer | None = None) -> None:
        self._writes = writes
        self._bus = bus
        self._observer = observer or Observer()

    async def commit(self, task_id: UUID, commits: Iterable[Commit], *, size_bytes: int) -> None:
        """Write all `commits` or none; each builds on the one before. They are taken one by one.

        Raises what ends a session whose commit is refused. After StoreUnavailable it is unknown
        whether they are stored, unless the rows were held (`is_row_held`): then nothing is stored.
        """
        with self._observer.committing(tasks=1, size_bytes=size_bytes):
            # In the pauses the connection is free for uploads of other tasks.
            outcome = await retry_while_held(lambda: self._commit(task_id, commits))
        if outcome is not Outcome.COMMITTED:
            raise error_of(outcome, task_id)
        # Without the commits: followers read the store, which has them in pages.
        self._bus.publish(Moved(task_id))

    async def _commit(self, task_id: UUID, commits: Iterable[Commit]) -> Outcome:
        outcome = await self._writes.commit_together(task_id, commits)
        if outcome is Outcome.LOCKED:
            raise row_held()  # and `commits` was not touched: it can be taken again
        return outcome
