"""The state machine: derives a task's status from the facts of its latest workspace build.

Facts are reported and stored. The status is derived from them on every use and never stored. Three
layers compute a status each. ACTIVE means that the next layer decides.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import assert_never

# The values of these enums are stored as text: renaming one is a migration.


class TaskStatus(StrEnum):
    """The status of a task, as readers see it. Each layer computes one, too."""

    PENDING = "PENDING"
    INITIALIZING = "INITIALIZING"
    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    ERROR = "ERROR"
    UNKNOWN = "UNKNOWN"


class BuildTransition(StrEnum):
    """What a workspace build does to the task's compute."""

    START = "START"
    STOP = "STOP"
    DELETE = "DELETE"


class JobStatus(StrEnum):
    """The progress of the job that carries out a workspace build."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELING = "CANCELING"
    CANCELED = "CANCELED"


class AgentLifecycle(StrEnum):
    """The lifecycle of the workspace's agent, in order."""

    CREATED = "CREATED"
    STARTING = "STARTING"
    READY = "READY"
    START_TIMEOUT = "START_TIMEOUT"
    START_ERROR = "START_ERROR"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    SHUTDOWN_TIMEOUT = "SHUTDOWN_TIMEOUT"
    SHUTDOWN_ERROR = "SHUTDOWN_ERROR"
    OFF = "OFF"


class AppHealth(StrEnum):
    """The health of the task app; DISABLED: it is not checked."""

    DISABLED = "DISABLED"
    INITIALIZING = "INITIALIZING"
    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"


@dataclass(frozen=True, slots=True)
class Facts:
    """What was reported about a task's latest build; None: not reported.

    Builds are numbered from 1. Before the first build the first three fields are all None.
    """

    build_number: int | None
    transition: BuildTransition | None
    job_status: JobStatus | None
    lifecycle: AgentLifecycle | None
    health: AppHealth | None

    @property
    def start_build(self) -> int | None:
        """The number of the latest build, if it is a START."""
        return self.build_number if self.transition is BuildTransition.START else None


NO_FACTS = Facts(None, None, None, None, None)


@dataclass(frozen=True, slots=True)
class StatusDetail:
    """A task's status, the status that each layer computed, and the facts behind them."""

    facts: Facts
    build: TaskStatus
    agent: TaskStatus
    app: TaskStatus
    status: TaskStatus


def derive(facts: Facts) -> StatusDetail:
    """Return the status of the first layer that is not ACTIVE, or ACTIVE if all are."""
    return StatusDetail(
        facts, *_computed(facts.transition, facts.job_status, facts.lifecycle, facts.health)
    )


# Every read derives a status: each of the few combinations is computed once.
@cache
def _computed(
    transition: BuildTransition | None,
    job_status: JobStatus | None,
    lifecycle: AgentLifecycle | None,
    health: AppHealth | None,
) -> tuple[TaskStatus, TaskStatus, TaskStatus, TaskStatus]:
    """Return the status of each layer, and the task's."""
    layers = build_layer(transition, job_status), agent_layer(lifecycle), app_layer(health)
    inactive = (layer for layer in layers if layer is not TaskStatus.ACTIVE)
    return *layers, next(inactive, TaskStatus.ACTIVE)


def build_layer(transition: BuildTransition | None, job_status: JobStatus | None) -> TaskStatus:
    """Return the status of the build layer. A stop or deletion in progress is UNKNOWN."""
    if transition is None:
        return TaskStatus.PENDING
    starts = transition is BuildTransition.START
    match job_status:
        case None:
            return TaskStatus.PENDING
        case JobStatus.PENDING:
            return TaskStatus.PENDING if starts else TaskStatus.UNKNOWN
        case JobStatus.RUNNING:
            return TaskStatus.ACTIVE if starts else TaskStatus.UNKNOWN
        case JobStatus.SUCCEEDED:
            return TaskStatus.ACTIVE if starts else TaskStatus.PAUSED
        case JobStatus.FAILED | JobStatus.CANCELING | JobStatus.CANCELED:
            return TaskStatus.ERROR
        case _:
            assert_never(job_status)


def agent_layer(lifecycle: AgentLifecycle | None) -> TaskStatus:
    """Return the status of the agent layer. After a failed start logs may still be readable."""
    match lifecycle:
        case None | AgentLifecycle.CREATED | AgentLifecycle.STARTING:
            return TaskStatus.INITIALIZING
        case AgentLifecycle.READY | AgentLifecycle.START_TIMEOUT | AgentLifecycle.START_ERROR:
            return TaskStatus.ACTIVE
        case (
            AgentLifecycle.SHUTTING_DOWN
            | AgentLifecycle.SHUTDOWN_TIMEOUT
            | AgentLifecycle.SHUTDOWN_ERROR
            | AgentLifecycle.OFF
        ):
            return TaskStatus.UNKNOWN
        case _:
            assert_never(lifecycle)


def app_layer(health: AppHealth | None) -> TaskStatus:
    """Return the status of the app layer."""
    match health:
        case None:
            return TaskStatus.UNKNOWN
        case AppHealth.INITIALIZING:
            return TaskStatus.INITIALIZING
        case AppHealth.HEALTHY | AppHealth.DISABLED:
            return TaskStatus.ACTIVE
        case AppHealth.UNHEALTHY:
            return TaskStatus.ERROR
        case _:
            assert_never(health)
