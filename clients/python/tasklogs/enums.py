"""The API's enums for programs. The numbers are the API's; a test compares the two.

A value that this version does not know, from a newer server, reads as UNSPECIFIED.
"""

from __future__ import annotations

from enum import IntEnum


class _ApiEnum(IntEnum):
    @classmethod
    def _missing_(cls, value: object) -> _ApiEnum | None:
        return cls(0) if isinstance(value, int) and value != 0 else None


class TaskStatus(_ApiEnum):
    """What a task is doing; it decides what a read does."""

    UNSPECIFIED = 0
    PENDING = 1
    INITIALIZING = 2
    ACTIVE = 3
    PAUSED = 4
    ERROR = 5
    UNKNOWN = 6


class BuildTransition(_ApiEnum):
    """What a workspace build does to the task's compute."""

    UNSPECIFIED = 0
    START = 1
    STOP = 2
    DELETE = 3


class JobStatus(_ApiEnum):
    """How far the job of a workspace build is."""

    UNSPECIFIED = 0
    PENDING = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4
    CANCELING = 5
    CANCELED = 6


class AgentLifecycle(_ApiEnum):
    """Where the workspace's agent is in its life."""

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
    """How the task app is."""

    UNSPECIFIED = 0
    DISABLED = 1
    INITIALIZING = 2
    HEALTHY = 3
    UNHEALTHY = 4


class TaskLogType(_ApiEnum):
    """Who speaks: INPUT was said to the agent, OUTPUT by it."""

    UNSPECIFIED = 0
    INPUT = 1
    OUTPUT = 2


class LogSource(_ApiEnum):
    """Where a read takes the log from: as the status says, live only, or as it is stored."""

    UNSPECIFIED = 0
    LIVE = 1
    SNAPSHOT = 2
