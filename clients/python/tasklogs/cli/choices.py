"""The API's enums as people type them: `start-timeout` for AGENT_LIFECYCLE_START_TIMEOUT.

Written out because --help shows them and must not import the stubs; a test compares the two.
"""

from __future__ import annotations

import re
from enum import StrEnum


class TaskStatus(StrEnum):
    """What a task is doing."""

    PENDING = "pending"
    INITIALIZING = "initializing"
    ACTIVE = "active"
    PAUSED = "paused"
    ERROR = "error"
    UNKNOWN = "unknown"


class BuildTransition(StrEnum):
    """What a workspace build does to the task's compute."""

    START = "start"
    STOP = "stop"
    DELETE = "delete"


class JobStatus(StrEnum):
    """How far the job of a workspace build is."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELING = "canceling"
    CANCELED = "canceled"


class AgentLifecycle(StrEnum):
    """Where the workspace's agent is in its life."""

    CREATED = "created"
    STARTING = "starting"
    READY = "ready"
    START_TIMEOUT = "start-timeout"
    START_ERROR = "start-error"
    SHUTTING_DOWN = "shutting-down"
    SHUTDOWN_TIMEOUT = "shutdown-timeout"
    SHUTDOWN_ERROR = "shutdown-error"
    OFF = "off"


class AppHealth(StrEnum):
    """How the task app is."""

    DISABLED = "disabled"
    INITIALIZING = "initializing"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class LogSource(StrEnum):
    """Where a read takes the log from."""

    LIVE = "live"
    SNAPSHOT = "snapshot"


def proto_name(choice: StrEnum) -> str:
    """The API's name of `choice`: JobStatus.FAILED is JOB_STATUS_FAILED."""
    return f"{_prefix(type(choice).__name__)}{choice.name}"


def typed_name(enum_name: str, value_name: str) -> str:
    """What people type for an API's value, `failed` for JobStatus' JOB_STATUS_FAILED."""
    return value_name.removeprefix(_prefix(enum_name)).lower().replace("_", "-")


def _prefix(enum_name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", enum_name).upper() + "_"
