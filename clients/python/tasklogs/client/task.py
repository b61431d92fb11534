"""A task as its operators and orchestrators see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from tasklogs.enums import AgentLifecycle, AppHealth, BuildTransition, JobStatus, TaskStatus


@dataclass(frozen=True, slots=True)
class BuildFacts:
    """The latest workspace build; `number` is 0 when there is none. `computed`: what it makes."""

    number: int
    transition: BuildTransition
    job_status: JobStatus
    computed: TaskStatus


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """The agent of that build."""

    lifecycle: AgentLifecycle
    computed: TaskStatus


@dataclass(frozen=True, slots=True)
class AppFacts:
    """The task app of that build."""

    health: AppHealth
    computed: TaskStatus


@dataclass(frozen=True, slots=True)
class StatusDetail:
    """What a status was derived from: the first layer that is not ACTIVE decides."""

    build: BuildFacts
    agent: AgentFacts
    app: AppFacts


@dataclass(frozen=True, slots=True)
class LogSummary:
    """How a task's log stands.

    `epoch` is 0 when nothing was ever stored. `entries` are those held of the current epoch,
    `bytes` the content held over all epochs. `snapshot_at` (UTC): the moment of which the log is a
    true picture.
    """

    epoch: int
    entries: int
    revision: int
    bytes: int
    snapshot_at: datetime | None


@dataclass(frozen=True, slots=True)
class Task:
    """One unit of agent work. `id` is a UUID; `created_at` is in UTC."""

    id: str
    owner: str
    name: str
    display_name: str
    prompt: str
    standalone: bool
    created_at: datetime
    status: TaskStatus
    status_detail: StatusDetail
    log: LogSummary
    agent_connected: bool

    @property
    def full_name(self) -> str:
        """`owner/name`, which every call takes for the task."""
        return f"{self.owner}/{self.name}"


@dataclass(frozen=True, slots=True)
class CreatedTask:
    """A new task, and its agent's token, which is shown this once."""

    task: Task
    agent_token: str = field(repr=False)
    """Left out of what is printed of this."""
