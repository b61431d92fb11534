"""What sessions write without a commit: confirmed times, and tails as one row."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from tasklogs_server.store.log_writes import LogWrites
from tasklogs_server.store.records import EntryRow


@dataclass(slots=True)
class _Confirmed:
    """A time at which the stored log was a true picture of the task app."""

    fence: int
    at: datetime
    is_persisted: bool


class WriteBehind:
    """The confirmed time of each task, kept here until it is written.

    A commit carries its own time into the store. A sync that finds nothing new has no commit: its
    time is written at a goodbye, or else at the next tick.
    """

    def __init__(self, writes: LogWrites) -> None:
        self._writes = writes
        self._confirmed: dict[UUID, _Confirmed] = {}

    def confirm(self, task_id: UUID, fence: int, at: datetime, *, is_persisted: bool) -> None:
        """Note that the stored log was a true picture at `at`. An earlier time changes nothing."""
        known = self._confirmed.get(task_id)
        if known is None or known.at < at:
            self._confirmed[task_id] = _Confirmed(fence, at, is_persisted)

    def confirmed_at(self, task_id: UUID) -> datetime | None:
        """Return the latest time that this process knows of, whether or not it is written."""
        confirmed = self._confirmed.get(task_id)
        return None if confirmed is None else confirmed.at

    async def persist(self, task_id: UUID) -> None:
        """Write the time of one task, and wait for no other task's row."""
        confirmed = self._confirmed.get(task_id)
        if confirmed is not None:
            await self._write({task_id: confirmed})

    async def persist_all(self, *, open_tasks: Container[UUID]) -> None:
        """Write all times; forget those of tasks without an open session."""
        await self._write(self._confirmed)
        for task_id in [
            task_id
            for task_id, one in self._confirmed.items()
            if one.is_persisted and task_id not in open_tasks
        ]:
            del self._confirmed[task_id]

    async def fold(self, task_id: UUID, *, fence: int, revision: int, row: EntryRow) -> None:
        """Write the tail as one row, if fence and revision still stand."""
        await self._writes.fold(task_id, fence=fence, revision=revision, row=row)

    async def _write(self, confirmed: dict[UUID, _Confirmed]) -> None:
        missing = {task_id: one for task_id, one in confirmed.items() if not one.is_persisted}
        if missing:
            await self._writes.confirm(
                [(task_id, one.fence, one.at) for task_id, one in missing.items()]
            )
        for one in missing.values():
            one.is_persisted = True
