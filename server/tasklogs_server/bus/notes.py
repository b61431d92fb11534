"""What processes, and the rooms of one process, tell each other: hints that wake."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Moved:
    """The task's log, or the facts of its status, changed.

    `commit`: the change of the log itself, where this very process committed it; it does not
    travel. Whoever knows all that came before need not read the store for it.
    """

    task_id: UUID
    commit: object | None = None


@dataclass(frozen=True, slots=True)
class Deleted:
    """The task was deleted."""

    task_id: UUID


Note = Moved | Deleted
