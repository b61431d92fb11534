"""Notes between server processes and between packages of one process: hints to read the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

from tasklogs_server.domain.synced import Synced
from tasklogs_server.store.records import Commit


@dataclass(frozen=True, slots=True)
class Moved:
    """The task's log, or the facts of its status, changed.

    `commit`: the change of the log, if this process committed it. It is not sent to other
    processes. A listener that knows the log up to the commit's base does not have to read the
    store. `revision`: the log's revision after a commit of another process. Without both, anything
    may have changed.
    """

    task_id: UUID
    commit: Commit | None = None
    revision: int | None = None


@dataclass(frozen=True, slots=True)
class Deleted:
    """The task was deleted."""

    task_id: UUID


@dataclass(frozen=True, slots=True)
class SessionBegan:
    """A session of the task began in the sender's process. Its fence ends those with lower ones."""

    task_id: UUID
    fence: int


@dataclass(frozen=True, slots=True)
class SessionDoubted:
    """The task's session may have ended: its token was rotated, or a read has found so."""

    task_id: UUID


@dataclass(frozen=True, slots=True)
class BuildReported:
    """A build of the task was reported. Its agent is asked for its state, or is too old."""

    task_id: UUID


@dataclass(frozen=True, slots=True)
class SyncAsked:
    """Bring the task's stored log up to date. It is answered with `id`.

    `fence`: that of the session. `max_staleness_seconds`: a sync that began at most so long ago is
    enough; None: only one that begins now.
    """

    id: int
    task_id: UUID
    fence: int
    max_staleness_seconds: float | None


@dataclass(frozen=True, slots=True)
class SyncAnswered:
    """The answer to SyncAsked: what the sync rests on, or why there is none.

    `failure`: what the task app said. Without `synced` and `failure` there is no such session.
    """

    id: int
    synced: Synced | None = None
    failure: str | None = None


# Notes about a task, which listeners of the same process get, too.
Note: TypeAlias = Moved | Deleted | SessionBegan | SessionDoubted | BuildReported

# Notes to one process.
DirectNote: TypeAlias = SyncAsked | SyncAnswered | SessionDoubted

# What a process hears of others.
HeardNote: TypeAlias = Note | SyncAsked | SyncAnswered
