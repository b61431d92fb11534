"""What processes, and the rooms of one process, tell each other: hints that wake."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Moved:
    """The task's log, or the facts of its status, changed."""

    task_id: UUID


@dataclass(frozen=True, slots=True)
class Deleted:
    """The task was deleted."""

    task_id: UUID


Note = Moved | Deleted
