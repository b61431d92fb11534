"""An entry of a log, as the algebra sees it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple


class EntryType(enum.IntEnum):
    """Who speaks. The numbers are those of `tasklogs.v1.TaskLogType`."""

    INPUT = 1
    OUTPUT = 2


class Time(NamedTuple):
    """A moment as the task app gave it: whole seconds since 1970 (UTC) and nanoseconds after them.

    Datetimes hold microseconds only, and a digest must see all that was given.
    """

    seconds: int
    nanos: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One message of the conversation.

    `content` is UTF-8; `dropped_bytes` counts what truncation took from its front.
    """

    id: int
    type: EntryType
    time: Time
    content: bytes
    dropped_bytes: int = 0
