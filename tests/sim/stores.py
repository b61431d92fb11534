"""The store as one process sees it: the methods of the real one, over the modelled Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from tasklogs_server.domain.names import TaskId
from tasklogs_server.domain.synced import StoredState
from tasklogs_server.store.log_changes import Changes, _joined
from tasklogs_server.store.log_writes import Lane, Outcome
from tasklogs_server.store.records import Commit, EntryRow
from tasklogs_server.store.session_audit import AuditedTask, HeldSession
from tasklogs_server.store.sessions import Opening
from tests.sim.primary import Primary
from tests.sim.processor import Processor

# As TASKLOGS_READ_CONNECTIONS.
READ_CONNECTIONS = 8
# Further ones that a process has: see TASKLOGS_READ_CONNECTIONS.
OTHER_CONNECTIONS = 10


class ModelStore:
    """Has the methods that sessions, commits and follows use of `SessionStore`, `LogWrites`,
    `TaskStore` and `LogChanges`."""

    def __init__(self, process_id: UUID, primary: Primary, processor: Processor) -> None:
        self._process_id = process_id
        self._primary = primary
        self._processor = processor
        self._reads = asyncio.Semaphore(READ_CONNECTIONS)
        self._open: dict[int, UUID] = {}
        """Tasks by the serials of sessions that the rows may name."""

    # SessionStore

    async def open_session(
        self, task_id: UUID, *, serial: int, admit: Callable[[int | None], None], connect: Any
    ) -> Opening:
        await self._processor.work(self._primary.costs.handshake)
        await self._ask(self._primary.costs.open_session, flush=True)
        opening = self.raise_fence(task_id, serial)
        admit(self._primary.state(task_id).start_build)
        await self._answered()
        return opening

    def raise_fence(self, task_id: UUID, serial: int) -> Opening:
        """Change the rows as a handshake does, at once."""
        row = self._primary.rows[task_id]
        row.fence += 1
        row.process, row.serial = self._process_id, serial
        self._open[serial] = task_id
        return Opening(row.fence, row.head, row.tail_content, standalone=False)

    async def open_serials(self, last: int, *, but_for: Collection[int]) -> Sequence[int]:
        costs = self._primary.costs
        await self._ask(costs.read + costs.audit_row / 10 * len(self._open))
        live = set(but_for)
        found = [serial for serial in self._open if serial <= last and serial not in live]
        await self._answered()
        return [serial for serial in found if self._names(serial)]

    async def lose_sessions(self, serials: Collection[int]) -> Collection[int]:
        costs = self._primary.costs
        await self._ask(costs.batch + costs.batch_row * len(serials), flush=True)
        for serial in serials:
            if self._names(serial):
                self._primary.rows[self._open[serial]].process = None
            self._open.pop(serial, None)
        await self._answered()
        return ()

    async def audit(self, held: Sequence[HeldSession]) -> Sequence[AuditedTask]:
        costs = self._primary.costs
        await self._processor.work(costs.audited * len(held))
        await self._ask(costs.read + costs.audit_row * len(held))
        found = [one for each in held if (one := self._audited(each)) is not None]
        self._primary.measures.counts["audited sessions"] += len(held)
        await self._answered()
        return found

    async def process_of(self, task_id: UUID) -> tuple[UUID, int] | None:
        await self._read()
        row = self._primary.rows[task_id]
        found = None if row.process is None else (row.process, row.fence)
        await self._answered()
        return found

    async def tail_content(self, task_id: UUID) -> bytes:
        await self._read()
        content = self._primary.rows[task_id].tail_content or b""
        await self._answered()
        return content

    async def epochs_in_the_last_hour(self, _: UUID) -> int:
        return 0

    def _names(self, serial: int) -> bool:
        task_id = self._open.get(serial)
        if task_id is None:
            return False
        row = self._primary.rows[task_id]
        return row.process == self._process_id and row.serial == serial

    def _audited(self, held: HeldSession) -> AuditedTask | None:
        row = self._primary.rows[held.task_id]
        is_behind = row.head.revision < held.revision
        if row.fence == held.fence and not is_behind:
            return None
        return AuditedTask(
            held.task_id,
            held.fence,
            is_deleted=False,
            is_behind=is_behind,
            session_fence=row.fence,
            start_build=None,
            token_hash=None,
        )

    # LogWrites

    async def commit(
        self, commits: Sequence[Commit], lane: Lane = Lane.BATCHES
    ) -> Mapping[UUID, Outcome]:
        costs = self._primary.costs
        await self._processor.work(costs.statement + costs.commit * len(commits))
        await self._ask(costs.batch + costs.batch_row * len(commits), flush=True)
        outcomes = self._primary.commit(commits)
        await self._answered()
        return outcomes

    async def locked_heads(self, _: Sequence[UUID]) -> Collection[UUID]:
        return ()

    async def confirm(
        self, confirmed: Sequence[tuple[UUID, int, datetime]], *, generation: str
    ) -> Collection[UUID]:
        costs = self._primary.costs
        await self._ask(costs.batch + costs.batch_row * len(confirmed), flush=True)
        await self._answered()
        return ()

    async def fold(self, task_id: UUID, **_: Any) -> None:
        raise AssertionError("no tail grows here")

    # What reads need

    async def state(self, task_id: UUID) -> StoredState:
        await self._read()
        found = self._primary.state(task_id)
        await self._answered()
        return found

    # LogChanges

    async def start(
        self, ref: TaskId, tail: int | None, types: tuple[int, ...] = ()
    ) -> tuple[Any, int]:
        await self._read()
        task = self._primary.task(ref.id)
        await self._answered()
        return task, task.head.revision if tail == 0 else 0

    async def since(
        self,
        task_id: UUID,
        revision: int,
        *,
        held_revision: int | None = None,
        types: tuple[int, ...] = (),
    ) -> Changes:
        await self._read()
        task = self._primary.task(task_id)
        changes = _joined(self._primary.changes(task_id, revision))
        await self._answered()
        return Changes(task, changes, task.head.revision, more=False)

    async def _read(self) -> None:
        async with self._reads:
            await self._processor.work(self._primary.costs.statement / 2)
            await self._primary.statement(self._primary.costs.read)

    async def _ask(self, seconds: float, *, flush: bool = False) -> None:
        await self._primary.statement(seconds, flush=flush)

    async def _answered(self) -> None:
        costs = self._primary.costs
        await asyncio.sleep(costs.hop)
        await self._processor.work(costs.statement / 2)


def rows_of(kept: Sequence[EntryRow]) -> Sequence[int]:
    """Return the ids of entries, in the order in which they are stored."""
    return [one.id for one in kept]
