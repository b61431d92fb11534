"""What a follow says, before it is encoded."""

from __future__ import annotations

from dataclasses import dataclass

from tasklogs.log.delta import Delta
from tasklogs_server.domain.status import StatusDetail
from tasklogs_server.store.log_changes import EntriesChanged
from tasklogs_server.store.records import EpochOpened, TailHead, TailWithdrawn
from tasklogs_server.wire.entries import encode_head


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """The task's status, first of all and whenever its facts change."""

    detail: StatusDetail


@dataclass(frozen=True, slots=True)
class TailSent:
    """The tail as it is now, and how it came from what it was, where that is known."""

    epoch: int
    head: TailHead
    content: bytes
    base_revision: int | None
    delta: Delta | None

    @property
    def revision(self) -> int:
        """At which it last changed."""
        return self.head.revision

    @property
    def encoded(self) -> bytes:
        """The whole entry as the field `logs` travels."""
        head = self.head
        return (
            encode_head(
                head.id, head.type, head.time, head.revision, head.dropped_bytes, len(self.content)
            )
            + self.content
        )


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """All that there was when the follow began has been sent."""


@dataclass(frozen=True, slots=True)
class Progress:
    """All up to the cursor has been sent."""


LogEvent = EntriesChanged | TailSent | EpochOpened | TailWithdrawn
FollowEvent = LogEvent | StatusChanged | CaughtUp | Progress
