"""An entry of a log."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple


class EntryType(enum.IntEnum):
    """Who wrote an entry. The numbers are those of `tasklogs.v1.TaskLogType`."""

    INPUT = 1
    OUTPUT = 2


class Time(NamedTuple):
    """A timestamp of the task app: whole seconds since 1970 (UTC), and nanoseconds after them.

    A datetime has only microseconds, and the digest covers all that was given.
    """

    seconds: int
    nanos: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One message of the conversation.

    `content` is UTF-8. `dropped_bytes` is how many bytes truncation removed from its front.
    """

    id: int
    type: EntryType
    time: Time
    content: bytes
    dropped_bytes: int = 0
