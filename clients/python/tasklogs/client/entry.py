"""An entry of a log, as readers get it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tasklogs.enums import TaskLogType

_1970 = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One message of a task's conversation.

    `id` is the id of the message. Ids increase within an epoch, from 0, with gaps. `revision` is
    the task's revision at which the entry last changed. `dropped_bytes` is how many bytes were
    removed from the front of `content`, because it was longer than 1 MiB.
    """

    id: int
    type: TaskLogType
    content: str
    time_ns: int
    """When it was written or last changed, by the task app: nanoseconds since 1970 (UTC)."""
    revision: int
    dropped_bytes: int = 0
    source_id: str = ""
    """The message's id in the source that the agent reads; empty if the source has no such ids."""
    name: str = ""
    """The tool's name, for TOOL_CALL and TOOL_RESULT."""
    call_id: str = ""
    """Joins a tool's result to its call: both have the same `call_id`."""

    @property
    def time(self) -> datetime:
        """`time_ns` in UTC, to the microsecond. OverflowError if datetime lacks the year."""
        return _1970 + timedelta(microseconds=self.time_ns // 1000)
