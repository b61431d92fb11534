"""What sessions write without a commit: confirmed times, and folded tails."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from tasklogs_server.domain.errors import StoreUnavailable
from tasklogs_server.store.errors import is_row_held
from tasklogs_server.store.generations import Generations
from tasklogs_server.store.log_writes import LogWrites
from tasklogs_server.store.records import EntryRow
from tasklogs_server.store.task_transactions import retry_while_held


@dataclass(slots=True)
class _Confirmed:
    """A time at which the stored log matched the task app."""

    fence: int
    at: datetime
    is_persisted: bool
    revision: int
    """The log's revision at that time: a store below it was not what matched."""


class WriteBehind:
    """Keeps the confirmed time of each task until it is written.

    A commit writes its own time. A sync that finds nothing new has no commit: its time is written
    at a goodbye or at the next tick.
    """

    def __init__(self, writes: LogWrites, generations: Generations) -> None:
        self._writes = writes
        self._generations = generations
        self._confirmed: dict[UUID, _Confirmed] = {}
        # What was confirmed of a lost history says nothing about the log that the store has now.
        generations.on_change(lambda: self._confirmed.clear())

    def confirm(
        self,
        task_id: UUID,
        generation: str,
        fence: int,
        at: datetime,
        *,
        is_persisted: bool,
        revision: int = 0,
    ) -> None:
        """Note that the stored log matched the task app at `at`, if no later time is known.

        `revision` is that of the stored log then. A time of a former generation is dropped.
        """
        if generation != self._generations.current:
            return
        known = self._confirmed.get(task_id)
        if known is None or known.at < at:
            self._confirmed[task_id] = _Confirmed(fence, at, is_persisted, revision)

    def forget(self, task_id: UUID) -> None:
        """Write nothing for this task: its store lost what was confirmed."""
        self._confirmed.pop(task_id, None)

    def confirmed_at(self, task_id: UUID, stored_revision: int) -> datetime | None:
        """Return the latest time that this process knows, whether or not it is written.

        None if the store, at `stored_revision`, is behind what was confirmed.
        """
        confirmed = self._confirmed.get(task_id)
        if confirmed is None or stored_revision < confirmed.revision:
            return None
        return confirmed.at

    async def persist(self, task_id: UUID) -> None:
        """Write the time of one task, if its row is free. If not, a later tick writes it."""
        confirmed = self._confirmed.get(task_id)
        if confirmed is not None:
            await self._write({task_id: confirmed})

    async def persist_all(self, *, open_tasks: Container[UUID]) -> None:
        """Write all times. Remove those of tasks without an open session."""
        await self._write(self._confirmed)
        for task_id in [
            task_id
            for task_id, one in self._confirmed.items()
            if one.is_persisted and task_id not in open_tasks
        ]:
            del self._confirmed[task_id]

    async def fold(
        self, task_id: UUID, *, generation: str, fence: int, revision: int, row: EntryRow
    ) -> None:
        """Write the tail as one row, if the stored fence and revision are these.

        If another transaction holds the task's rows, wait up to 2 s. The tail may stay as it is:
        reads put its parts together. Raises StoreUnavailable if the store has not this generation.
        """
        try:
            await retry_while_held(
                lambda: self._writes.fold(
                    task_id, generation=generation, fence=fence, revision=revision, row=row
                )
            )
        except StoreUnavailable as error:
            if not is_row_held(error):
                raise

    async def _write(self, confirmed: dict[UUID, _Confirmed]) -> None:
        missing = {task_id: one for task_id, one in confirmed.items() if not one.is_persisted}
        if not missing:
            return
        # All are of the generation that is the current one now: others were dropped.
        held = await self._writes.confirm(
            [(task_id, one.fence, one.at) for task_id, one in missing.items()],
            generation=self._generations.current,
        )
        for task_id, one in missing.items():
            one.is_persisted = task_id not in held
