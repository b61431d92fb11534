"""The API's enums, with the API's numbers. A test compares the two.

A newer server may send a value that this version does not know. Its number is kept, in a member
that is named like UNRECOGNIZED_7, and `is_recognized` is False. In a `match`, let `case _` handle
it.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import Any

# A hostile server can send four billion numbers.
_CACHED = 256
_INT32 = range(-(2**31), 2**31)


class _ApiEnum(IntEnum):
    @property
    def is_recognized(self) -> bool:
        """Whether this version knows the value."""
        return self.name in type(self).__members__

    @classmethod
    def _missing_(cls, value: object) -> _ApiEnum | None:
        if type(value) is not int or value not in _INT32:
            return None
        return _unrecognized(cls, value)

    def __reduce_ex__(self, _: Any) -> tuple[type[_ApiEnum], tuple[int]]:
        return type(self), (int(self),)


@lru_cache(maxsize=_CACHED)
def _unrecognized(kind: type[_ApiEnum], value: int) -> _ApiEnum:
    """Return a member that is not in `__members__`. It equals every other one with its number."""
    member = int.__new__(kind, value)
    member._name_ = f"UNRECOGNIZED_{value}"
    member._value_ = value
    return member


class TaskStatus(_ApiEnum):
    """The status of a task, which decides what a read returns."""

    UNSPECIFIED = 0
    PENDING = 1
    INITIALIZING = 2
    ACTIVE = 3
    PAUSED = 4
    ERROR = 5
    UNKNOWN = 6


class TaskView(IntEnum):
    """How much of a task a call returns: BASIC is everything but the prompt."""

    UNSPECIFIED = 0
    BASIC = 1
    FULL = 2


class BuildTransition(_ApiEnum):
    """What a workspace build does to the task's compute."""

    UNSPECIFIED = 0
    START = 1
    STOP = 2
    DELETE = 3


class JobStatus(_ApiEnum):
    """The state of the job of a workspace build."""

    UNSPECIFIED = 0
    PENDING = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4
    CANCELING = 5
    CANCELED = 6


class AgentLifecycle(_ApiEnum):
    """The lifecycle state of the workspace's agent."""

    UNSPECIFIED = 0
    CREATED = 1
    STARTING = 2
    READY = 3
    START_TIMEOUT = 4
    START_ERROR = 5
    SHUTTING_DOWN = 6
    SHUTDOWN_TIMEOUT = 7
    SHUTDOWN_ERROR = 8
    OFF = 9


class AppHealth(_ApiEnum):
    """The health of the task app."""

    UNSPECIFIED = 0
    DISABLED = 1
    INITIALIZING = 2
    HEALTHY = 3
    UNHEALTHY = 4


class TaskLogType(_ApiEnum):
    """What an entry is.

    INPUT is from the user, OUTPUT from the agent. TOOL_CALL and TOOL_RESULT: the agent called a
    tool, and what the tool returned. THOUGHT: what the agent thought. NOTICE: information about the
    session.
    """

    UNSPECIFIED = 0
    INPUT = 1
    OUTPUT = 2
    TOOL_CALL = 3
    TOOL_RESULT = 4
    THOUGHT = 5
    NOTICE = 6


class LogSource(IntEnum):
    """What a read returns: by the task's status (UNSPECIFIED), the live log, or the stored log."""

    UNSPECIFIED = 0
    LIVE = 1
    SNAPSHOT = 2
