"""The read table: a task's status and the requested source decide what a read does first."""

from enum import Enum, auto
from typing import assert_never

from tasklogs_server.domain.errors import TaskStateConflict
from tasklogs_server.domain.status import StatusDetail, TaskStatus


class Source(Enum):
    """The source that the caller requests; DEFAULT: the task's status decides."""

    DEFAULT = auto()
    LIVE = auto()
    SNAPSHOT = auto()


class ReadPlan(Enum):
    """What a read does before it reads the store.

    It syncs with the task app (`snapshot=false`), or does nothing (`snapshot=true`). An empty store
    is not a conflict: the response has no entries.
    """

    SYNC_THEN_READ = auto()
    READ_SNAPSHOT = auto()


def plan_read(detail: StatusDetail, source: Source) -> ReadPlan:
    """Return how to read the current epoch. Raises TaskStateConflict if the status refuses it."""
    if source is Source.SNAPSHOT:
        return ReadPlan.READ_SNAPSHOT
    match detail.status:
        case TaskStatus.ACTIVE:
            return ReadPlan.SYNC_THEN_READ
        case TaskStatus.PAUSED | TaskStatus.PENDING | TaskStatus.INITIALIZING:
            if source is Source.LIVE:
                raise TaskStateConflict(detail)
            return ReadPlan.READ_SNAPSHOT
        case TaskStatus.ERROR | TaskStatus.UNKNOWN:
            raise TaskStateConflict(detail)
        case _:
            assert_never(detail.status)


def plan_earlier_epoch(detail: StatusDetail, source: Source) -> ReadPlan:
    """Return how to read an earlier epoch. It is refused like the current one, but never synced.

    An earlier epoch never changes again, so even a LIVE read of an ACTIVE task is answered from the
    store, as a snapshot.
    """
    plan_read(detail, source)
    return ReadPlan.READ_SNAPSHOT
