"""The events of a follow, before they are encoded."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from tasklogs.log.delta import Delta
from tasklogs_server.domain.status import StatusDetail
from tasklogs_server.store.log_changes import EntriesChanged
from tasklogs_server.store.records import EpochOpened, TailHead, TailWithdrawn
from tasklogs_server.wire.entries import encode_head


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """The task's status. It is sent first, and again whenever the task's facts change.

    `task_id` is set in the first message of a follow.
    """

    detail: StatusDetail
    task_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class TailSent:
    """The tail as it is now, and, if known, the delta from revision `base_revision`."""

    epoch: int
    head: TailHead
    content: bytes
    base_revision: int | None
    delta: Delta | None

    @property
    def revision(self) -> int:
        """The revision of the tail's last change."""
        return self.head.revision

    @property
    def encoded(self) -> bytes:
        """The whole entry, encoded as the field `logs`."""
        head = self.head
        return (
            encode_head(
                head.id, head.type, head.time, head.revision, head.dropped_bytes, len(self.content)
            )
            + self.content
        )


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Everything that the log held when the follow began has been sent."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Everything up to the cursor has been sent."""


LogEvent = EntriesChanged | TailSent | EpochOpened | TailWithdrawn
FollowEvent = LogEvent | StatusChanged | CaughtUp | Progress
