"""An entry of a log."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple


class EntryType(enum.IntEnum):
    """What an entry is. The numbers are those of `tasklogs.v1.TaskLogType`."""

    INPUT = 1
    OUTPUT = 2
    TOOL_CALL = 3
    TOOL_RESULT = 4
    THOUGHT = 5
    NOTICE = 6


class Time(NamedTuple):
    """A timestamp of the task app: whole seconds since 1970 (UTC), and nanoseconds after them.

    A datetime has only microseconds, and the digest covers all that was given.
    """

    seconds: int
    nanos: int


MAX_NAME_BYTES = 255
"""The limit of each of an entry's names."""


class Names(NamedTuple):
    """The names that an entry may have, each at most 255 bytes of UTF-8. Empty: not set."""

    source_id: str = ""
    """The message's id in the source that the agent reads."""
    name: str = ""
    """The tool's name."""
    call_id: str = ""
    """Joins a tool's result to its call."""

    @property
    def size_bytes(self) -> int:
        """Bytes of UTF-8 of all three."""
        # Nearly all are ASCII, and need not be encoded.
        return sum(len(text) if text.isascii() else len(text.encode()) for text in self)


NO_NAMES = Names()
"""Shared by all entries without names: most have none."""


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
    names: Names = NO_NAMES

    @property
    def size_bytes(self) -> int:
        """Bytes of the content and the names."""
        names = self.names
        return len(self.content) + (0 if names is NO_NAMES else names.size_bytes)
