"""Notes between server processes and between packages of one process: hints to read the store."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from tasklogs_server.store.records import Commit


@dataclass(frozen=True, slots=True)
class Moved:
    """The task's log, or the facts of its status, changed.

    `commit`: the change of the log, if this process committed it. It is not sent to other
    processes. A listener that knows the log up to the commit's base does not have to read the
    store.
    """

    task_id: UUID
    commit: Commit | None = None


@dataclass(frozen=True, slots=True)
class Deleted:
    """The task was deleted."""

    task_id: UUID


Note = Moved | Deleted
