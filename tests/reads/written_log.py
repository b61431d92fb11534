"""A log that a test writes change by change, through draft and store, without a stream."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self
from uuid import UUID

from tasklogs.log.append import Append, TailChange
from tasklogs.log.delta import Delta
from tasklogs.log.entry import NO_NAMES, Entry, EntryType, Names, Time
from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import types_pb2
from tasklogs_server.bus.local import LocalBus
from tasklogs_server.bus.notes import Moved
from tasklogs_server.domain.description import NewTask
from tasklogs_server.domain.names import TaskId
from tasklogs_server.domain.status import Facts
from tasklogs_server.ingest.draft import Draft
from tasklogs_server.store import Store
from tasklogs_server.store.log_reads import PageQuery
from tasklogs_server.store.log_writes import Outcome
from tasklogs_server.store.records import Commit
from tests.reads.follow_view import Key


async def new_task(store: Store, *, standalone: bool = False) -> UUID:
    """Create a task of owner `local`, named by its id."""
    task_id = uuid.uuid4()
    new = NewTask("local", str(task_id), standalone=standalone)
    await store.tasks.create(task_id, new, agent_token_hash=bytes(32))
    return task_id


def entry(
    id_: int,
    content: str,
    *,
    dropped_bytes: int = 0,
    seconds: int = 0,
    names: Names = NO_NAMES,
) -> Entry:
    """Make an entry. Its time is its id if none is given."""
    time = Time(seconds or id_, 0)
    return Entry(id_, EntryType.OUTPUT, time, content.encode(), dropped_bytes, names)


@dataclass
class WrittenLog:
    """Changes a log as an agent's session does, with one commit for each call."""

    store: Store
    bus: LocalBus
    task_id: UUID
    fence: int
    draft: Draft
    commits: list[Commit] = field(default_factory=list)
    on_commit: Callable[[Commit], None] = lambda commit: None
    hands_on_commits: bool = False
    """Whether notes carry the commit, as they do for commits of the followers' process."""

    @classmethod
    async def open(cls, store: Store, bus: LocalBus | None = None) -> Self:
        """Create a task and raise its fence."""
        task_id = await new_task(store)
        return cls(store, bus or LocalBus(), task_id, *await _open(store, task_id))

    async def reopen(self) -> None:
        """Raise the fence again, as the next session does."""
        self.fence, self.draft = await _open(self.store, self.task_id)

    @property
    def revision(self) -> int:
        """The revision of the last commit."""
        return self.commits[-1].head.revision if self.commits else 0

    async def entries(self, *entries: Entry, open_epoch: bool = False) -> None:
        """Commit whole entries."""
        await self.append(Append(1, open_epoch=open_epoch, entries=entries))

    async def grow(self, id_: int, text: str, *, keep_bytes: int) -> None:
        """Commit a change of the tail."""
        await self.change(id_, Delta.keeping(keep_bytes, text.encode()))

    async def change(self, id_: int, delta: Delta) -> None:
        """Commit any change of the tail."""
        await self.append(Append(1, tail=TailChange(id_, Time(id_, 0), delta)))

    async def withdraw(self, *entries: Entry) -> None:
        """Withdraw the tail and add entries, in one commit."""
        await self.append(Append(1, withdraw_tail=True, entries=entries))

    async def append(self, *appends: Append) -> None:
        """Commit appends as one change."""
        for one in appends:
            self.draft.apply(one)
        commit = self.draft.next_commit(self.task_id, self.fence, datetime.now(UTC))
        if commit is None:
            return  # what was added is withdrawn already
        outcomes = await self.store.writes.commit([commit])
        assert outcomes[self.task_id] is Outcome.COMMITTED
        self.commits.append(commit)
        self.on_commit(commit)
        self.bus.publish(Moved(self.task_id, commit if self.hands_on_commits else None))

    async def fold(self) -> None:
        """Fold the tail into one row, as at a goodbye."""
        folded = self.draft.fold()
        if folded is not None:
            revision, row = folded
            await self.store.writes.fold(
                self.task_id,
                generation=self.store.generations.current,
                fence=self.fence,
                revision=revision,
                row=row,
            )

    async def report(self, facts: Facts) -> None:
        """Change the facts of the task's status."""
        await self.store.tasks.change_facts(self.task_id, lambda _: facts)
        self.bus.publish(Moved(self.task_id))


async def stored(store: Store, task_id: UUID) -> dict[Key, types_pb2.TaskLogEntry]:
    """Read the log of all epochs, as readers do."""
    last = (await store.tasks.get(task_id)).head.epoch
    entries: dict[Key, types_pb2.TaskLogEntry] = {}
    for epoch in range(1, last + 1):
        start = 0
        while True:
            page = await store.reads.page(TaskId(task_id), PageQuery(epoch=epoch, start=start))
            for one in pb.GetTaskLogsResponse.FromString(page.entries.encoded).logs:
                entries[epoch, one.id] = one
            start = page.entries.next_ordinal
            if start >= page.end:
                break
    return entries


async def _open(store: Store, task_id: UUID) -> tuple[int, Draft]:
    opening = await store.sessions.open_session(
        task_id, admit=lambda _: None, connect=lambda facts: facts
    )
    draft = Draft(opening.head, opening.tail_content, tail_parts=opening.tail_parts)
    return opening.fence, draft


def many(count: int, *, size_bytes: int = 1, first: int = 0) -> Sequence[Entry]:
    """Make `count` entries of `size_bytes` bytes."""
    return [entry(first + one, "x" * size_bytes) for one in range(count)]
