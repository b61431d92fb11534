"""What a check finds."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Kind(enum.Enum):
    """What must be 0, as it is printed."""

    LOST = "lost"
    REPEATED = "repeated"
    REORDERED = "reordered"
    STALE = "stale live reads"
    BACKWARDS = "reads older than an acknowledgement"
    INVENTED = "contents nobody showed"
    WRONG_ANSWER = "wrong answers"
    FOLLOW_DIFFERS = "follows that differ"
    UNSETTLED = "not settled"
    FAULT_FAILED = "faults that failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that must not be; `what` says where to look."""

    kind: Kind
    task: str
    what: str

    def __str__(self) -> str:
        return (
            f"{self.kind.value}: {self.task}: {self.what}"
            if self.task
            else (f"{self.kind.value}: {self.what}")
        )
