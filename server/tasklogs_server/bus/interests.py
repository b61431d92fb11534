"""Which processes are told that a task changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from uuid import UUID

# A process with this many tasks costs no more if it is told of every task.
MAX_TASKS = 100_000


class Interests:
    """The tasks that each of the other processes follows.

    A process that has not said so yet, whose notes were lost, or that follows very many tasks, is
    told of every task.
    """

    def __init__(self) -> None:
        self._all: set[UUID] = set()
        """Processes whose tasks are not known."""
        self._said: dict[UUID, set[UUID] | None] = {}
        """The parts that each process has said so far. None: too many tasks."""
        self._tasks: dict[UUID, set[UUID]] = {}
        self._followers: dict[UUID, set[UUID]] = defaultdict(set)

    def of(self, task_id: UUID) -> Collection[UUID]:
        """Return the processes that follow a task, or may do so."""
        followers = self._followers.get(task_id)
        return self._all if not followers else self._all | followers

    @property
    def task_count(self) -> int:
        """How many tasks are remembered, each once for each process."""
        known = (*self._said.values(), *self._tasks.values())
        return sum(len(tasks) for tasks in known if tasks is not None)

    def unknown(self, process_id: UUID) -> None:
        """Tell the process of every task from now on."""
        self.forget(process_id)
        self._all.add(process_id)

    def said(self, process_id: UUID, tasks: Iterable[UUID], *, is_last: bool) -> None:
        """Note a part of all tasks that the process follows."""
        so_far = self._said.setdefault(process_id, set())
        if so_far is not None:
            so_far.update(tasks)
            self._bound(process_id)
        if not is_last:
            return
        so_far = self._said[process_id]
        if so_far is None:
            self.unknown(process_id)
            return
        self.forget(process_id)
        self._tasks[process_id] = so_far
        for task_id in so_far:
            self._followers[task_id].add(process_id)

    def changed(
        self, process_id: UUID, more: Collection[UUID], no_longer: Collection[UUID]
    ) -> None:
        """Note what the process follows in addition, and what no longer."""
        for tasks in (self._said.get(process_id), self._tasks.get(process_id)):
            if tasks is not None:
                tasks.update(more)
                tasks.difference_update(no_longer)
        if process_id in self._tasks:
            for task_id in more:
                self._followers[task_id].add(process_id)
            for task_id in no_longer:
                self._unfollow(task_id, process_id)
        self._bound(process_id)

    def _bound(self, process_id: UUID) -> None:
        """Forget the process's tasks if there are too many."""
        known = (self._said.get(process_id), self._tasks.get(process_id))
        if all(tasks is None or len(tasks) <= MAX_TASKS for tasks in known):
            return
        is_saying = process_id in self._said
        self.unknown(process_id)
        if is_saying:  # what it says until the last part is not all of it
            self._said[process_id] = None

    def forget(self, process_id: UUID) -> None:
        """Tell the process of nothing."""
        self._all.discard(process_id)
        self._said.pop(process_id, None)
        for task_id in self._tasks.pop(process_id, ()):
            self._unfollow(task_id, process_id)

    def clear(self) -> None:
        """Forget all processes."""
        self._all.clear()
        self._said.clear()
        self._tasks.clear()
        self._followers.clear()

    def _unfollow(self, task_id: UUID, process_id: UUID) -> None:
        followers = self._followers.get(task_id)
        if followers is not None:
            followers.discard(process_id)
            if not followers:
                del self._followers[task_id]
