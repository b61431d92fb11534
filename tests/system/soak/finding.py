"""The findings of checks."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Kind(enum.Enum):
    """The kinds of findings, as they are printed. A good run has none of any kind."""

    LOST = "lost"
    REPEATED = "repeated"
    REORDERED = "reordered"
    STALE = "stale live reads"
    BACKWARDS = "reads older than an acknowledgement"
    INVENTED = "contents that no task app showed"
    WRONG_ANSWER = "wrong answers"
    FOLLOW_DIFFERS = "follows that differ"
    DELAYED = "delays by held rows of another task"
    SESSIONS = "sessions at several servers"
    LATE = "late follows while all was well"
    LEAK = "leaks"
    UNSETTLED = "not settled"
    FAULT_FAILED = "faults that could not be injected"


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation of a promise. `what` says where to look."""

    kind: Kind
    task: str
    what: str

    def __str__(self) -> str:
        return (
            f"{self.kind.value}: {self.task}: {self.what}"
            if self.task
            else (f"{self.kind.value}: {self.what}")
        )
