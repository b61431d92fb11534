"""The read table: a task's status and the wanted source decide what a read must do first."""

from enum import Enum, auto
from typing import assert_never

from tasklogs_server.domain.errors import TaskStateConflict
from tasklogs_server.domain.status import StatusDetail, TaskStatus


class Source(Enum):
    """Where the caller wants the log from; DEFAULT leaves it to the task's status."""

    DEFAULT = auto()
    LIVE = auto()
    SNAPSHOT = auto()


class ReadPlan(Enum):
    """What comes before reading the store: a sync with the task app (`snapshot=false`), or
    nothing (`snapshot=true`). An empty store is no conflict: the answer has no entries.
    """

    SYNC_THEN_READ = auto()
    READ_SNAPSHOT = auto()


def plan_read(detail: StatusDetail, source: Source) -> ReadPlan:
    """How to read the current epoch; raises TaskStateConflict where no honest answer exists."""
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
    """How to read an earlier epoch: refused as `plan_read` refuses, but never synced.

    An earlier epoch never changes again, so a LIVE read of an ACTIVE task is answered from the
    store too, as a snapshot.
    """
    plan_read(detail, source)
    return ReadPlan.READ_SNAPSHOT
