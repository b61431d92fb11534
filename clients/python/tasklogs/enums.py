"""The API's enums, with the API's numbers. A test compares the two.

A value of a newer server that this version does not know becomes UNSPECIFIED.
"""

from __future__ import annotations

from enum import IntEnum


class _ApiEnum(IntEnum):
    @classmethod
    def _missing_(cls, value: object) -> _ApiEnum | None:
        return cls(0) if isinstance(value, int) and value != 0 else None


class TaskStatus(_ApiEnum):
    """The status of a task, which decides what a read returns."""

    UNSPECIFIED = 0
    PENDING = 1
    INITIALIZING = 2
    ACTIVE = 3
    PAUSED = 4
    ERROR = 5
    UNKNOWN = 6


class TaskView(_ApiEnum):
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


class LogSource(_ApiEnum):
    """What a read returns: by the task's status (UNSPECIFIED), the live log, or the stored log."""

    UNSPECIFIED = 0
    LIVE = 1
    SNAPSHOT = 2
