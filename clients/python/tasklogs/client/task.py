"""A task, as operators and orchestrators see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tasklogs.enums import AgentLifecycle, AppHealth, BuildTransition, JobStatus, TaskStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildFacts:
    """The latest workspace build; `number` is 0 if there is none. `computed`: its status."""

    number: int
    transition: BuildTransition
    job_status: JobStatus
    computed: TaskStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFacts:
    """The agent of that build."""

    lifecycle: AgentLifecycle
    computed: TaskStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class AppFacts:
    """The task app of that build."""

    health: AppHealth
    computed: TaskStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusDetail:
    """The facts that a status is derived from: the first layer that is not ACTIVE decides."""

    build: BuildFacts
    agent: AgentFacts
    app: AppFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSummary:
    """The state of a task's log.

    `epoch` is 0 if nothing was ever stored. `entries` is the number of stored entries of the
    current epoch, `bytes` the size of the stored content of all epochs. `snapshot_at` (UTC): the
    time at which the stored log was up to date.
    """

    epoch: int
    entries: int
    revision: int
    bytes: int
    snapshot_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One unit of agent work. `id` is a UUID; `created_at` is in UTC.

    `prompt` is None if the call did not ask for it. `etag` names this state of `display_name` and
    `labels`, for `update_task`.
    """

    id: str
    owner: str
    name: str
    display_name: str
    prompt: str | None
    standalone: bool
    created_at: datetime
    status: TaskStatus
    status_detail: StatusDetail
    log: LogSummary
    agent_connected: bool
    labels: Mapping[str, str] = field(hash=False)
    etag: str

    @property
    def full_name(self) -> str:
        """`owner/name`, which every call accepts as the task."""
        return f"{self.owner}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedTask:
    """A new task, and its agent's token, which is shown only once."""

    task: Task
    agent_token: str = field(repr=False)
    """Not part of `repr`."""
