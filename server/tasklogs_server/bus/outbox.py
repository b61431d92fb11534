"""Notes that wait to be sent, by receiver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar
from uuid import UUID

from tasklogs_server.bus import payloads
from tasklogs_server.bus.notes import HeardNote, Moved
from tasklogs_server.bus.payloads import Beat, Control, Follows, FollowsAll, LookAtAll
from tasklogs_server.bus.transport import Outgoing

# If more tasks changed, the receiver looks at all that it follows.
MAX_MOVED = 200
# While nothing can be sent, notes gather. Beyond this number they are lost, which shows.
MAX_NOTES = 10_000
# So that a note stays well below the size of a payload.
_TASKS_PER_NOTE = 150
# Processes that ended leave a number behind.
_MAX_RECEIVERS = 1_000
# A payload begins with about 60 bytes.
_HEAD_BYTES = 100

T = TypeVar("T")


class _Queue:
    """What waits for one receiver."""

    def __init__(self) -> None:
        self.number = 0
        """That of the last payload."""
        self.told_number = 0
        """The number that the last beat told."""
        self.notes: list[str] = []
        self.moved: dict[UUID, int | None] = {}
        self.looks_at_all = False

    def take(self) -> Sequence[str]:
        """Return the encoded notes, and forget them."""
        notes, self.notes = self.notes, []
        if self.looks_at_all:
            notes.append(payloads.encode(LookAtAll()))
        notes += [payloads.encode(Moved(*one)) for one in _moved_fields(self.moved)]
        self.moved, self.looks_at_all = {}, False
        return notes


class Outbox:
    """Gathers notes, and numbers the payloads that they become."""

    def __init__(self, sender: UUID, *, max_payload_bytes: int) -> None:
        self._sender = sender
        self._list_bytes = max_payload_bytes - _HEAD_BYTES
        self._to_all = _Queue()
        self._direct: dict[UUID, _Queue] = {}
        self._due: dict[UUID, None] = {}
        """The processes for which something may wait."""
        self._follow_changes: dict[UUID, bool] = {}
        self.beats = False
        """Whether the next payload tells that this process lives."""

    def add(self, note: HeardNote | Control, to: UUID | None = None) -> None:
        """Add a note for one process; None: for all."""
        queue = self._queue(to)
        if len(queue.notes) >= MAX_NOTES:
            queue.notes.clear()
            queue.number += 1  # receivers see that a payload is missing
        queue.notes.append(payloads.encode(note))

    def moved(self, task_id: UUID, revision: int | None, to: UUID) -> None:
        """Add that a task changed. Changes of the same task become one note."""
        queue = self._queue(to)
        if queue.looks_at_all:
            return
        known = queue.moved.get(task_id, 0)
        # Without a revision, anything may have changed.
        queue.moved[task_id] = None if known is None or revision is None else max(known, revision)
        if len(queue.moved) > MAX_MOVED:
            queue.moved.clear()
            queue.looks_at_all = True

    def follow_changed(self, task_id: UUID, *, follows: bool) -> None:
        """Add that this process follows a task, or no longer does."""
        self._follow_changes[task_id] = follows

    def say_follows(self, tasks: Sequence[UUID], to: UUID | None = None) -> None:
        """Add all tasks that this process follows."""
        parts = list(_parts(tasks)) or [[]]
        for part in parts[:-1]:
            self.add(FollowsAll(part, is_last=False), to)
        self.add(FollowsAll(parts[-1], is_last=True), to)

    def forget(self, process_id: UUID) -> None:
        """Drop what waits for a process. The numbers of its payloads go on if it comes back."""
        queue = self._direct.get(process_id)
        if queue is not None:
            queue.take()
            if len(self._direct) > _MAX_RECEIVERS:
                del self._direct[process_id]

    def take(self) -> Sequence[Outgoing]:
        """Return all that waits, as payloads."""
        outgoing: list[Outgoing] = []
        for process_id in self._due:
            queue = self._direct.get(process_id)
            if queue is not None:
                outgoing += self._payloads(queue, process_id)
        self._due.clear()
        for part in _parts(list(self._follow_changes)):
            more = [one for one in part if self._follow_changes[one]]
            no_longer = [one for one in part if not self._follow_changes[one]]
            self.add(Follows(more, no_longer))
        self._follow_changes.clear()
        if self.beats:
            self.beats = False
            self.add(Beat(self._numbers_to_tell()))
        # After the direct ones: a beat tells their numbers.
        return [*outgoing, *self._payloads(self._to_all, None)]

    def _numbers_to_tell(self) -> dict[str, int]:
        told: dict[str, int] = {}
        for process_id, queue in self._direct.items():
            if queue.number > queue.told_number and len(told) < _TASKS_PER_NOTE:
                told[process_id.hex] = queue.told_number = queue.number
        return told

    def _queue(self, to: UUID | None) -> _Queue:
        if to is None:
            return self._to_all
        self._due[to] = None
        queue = self._direct.get(to)
        if queue is None:
            queue = self._direct[to] = _Queue()
        return queue

    def _payloads(self, queue: _Queue, to: UUID | None) -> Iterator[Outgoing]:
        for part in payloads.joined(queue.take(), self._list_bytes):
            queue.number += 1
            head = payloads.head(self._sender, is_direct=to is not None, number=queue.number)
            yield Outgoing(to, head + part)


def _moved_fields(moved: dict[UUID, int | None]) -> Iterator[tuple[UUID, None, int | None]]:
    return ((task_id, None, revision) for task_id, revision in moved.items())


def _parts(tasks: Sequence[T]) -> Iterator[Sequence[T]]:
    for begin in range(0, len(tasks), _TASKS_PER_NOTE):
        yield tasks[begin : begin + _TASKS_PER_NOTE]
