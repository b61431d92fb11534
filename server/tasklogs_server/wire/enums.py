"""The enums of the protos and of the domain. The names are the same, with and without a prefix."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Generic, TypeVar

from tasklogs.v1 import tasks_pb2 as tasks
from tasklogs.v1 import types_pb2 as types
from tasklogs_server.domain.description import TaskView
from tasklogs_server.domain.errors import FieldViolation
from tasklogs_server.domain.status import (
    AgentLifecycle,
    AppHealth,
    BuildTransition,
    JobStatus,
    StatusDetail,
    TaskStatus,
)

D = TypeVar("D", bound=StrEnum)
W = TypeVar("W", bound=int)


class EnumCodec(Generic[D, W]):
    """Encodes and decodes one enum. The proto's 0 (unspecified) is None in the domain."""

    def __init__(self, domain: type[D], prefix: str, wire: Mapping[str, W]) -> None:
        self._prefix = prefix
        self._unspecified = wire[f"{prefix}_UNSPECIFIED"]
        self._to_wire = {value: wire[f"{prefix}_{value}"] for value in domain}
        self._to_domain = {int(number): value for value, number in self._to_wire.items()}

    def encode(self, value: D | None) -> W:
        """Return the proto's value."""
        return self._unspecified if value is None else self._to_wire[value]

    def decode(self, number: int, field: str, violations: list[FieldViolation]) -> D | None:
        """Return the domain's value, None for unspecified. An unknown number adds a violation."""
        value = self._to_domain.get(number)
        if value is None and number != self._unspecified:
            violations.append(FieldViolation(field, f"{number} is not a {self._prefix} value"))
        return value

    def name(self, value: D | None) -> str:
        """Return the full name, as in the protos."""
        return f"{self._prefix}_{value or 'UNSPECIFIED'}"


TASK_STATUS = EnumCodec(TaskStatus, "TASK_STATUS", dict(types.TaskStatus.items()))
BUILD_TRANSITION = EnumCodec(
    BuildTransition, "BUILD_TRANSITION", dict(types.BuildTransition.items())
)
JOB_STATUS = EnumCodec(JobStatus, "JOB_STATUS", dict(types.JobStatus.items()))
AGENT_LIFECYCLE = EnumCodec(AgentLifecycle, "AGENT_LIFECYCLE", dict(types.AgentLifecycle.items()))
APP_HEALTH = EnumCodec(AppHealth, "APP_HEALTH", dict(types.AppHealth.items()))
TASK_VIEW = EnumCodec(TaskView, "TASK_VIEW", dict(tasks.TaskView.items()))


def status_detail(detail: StatusDetail) -> types.StatusDetail:
    """Encode the facts and the status that each layer computed from them."""
    facts = detail.facts
    return types.StatusDetail(
        build=types.StatusDetail.Build(
            number=facts.build_number or 0,
            transition=BUILD_TRANSITION.encode(facts.transition),
            job_status=JOB_STATUS.encode(facts.job_status),
            computed=TASK_STATUS.encode(detail.build),
        ),
        agent=types.StatusDetail.Agent(
            lifecycle=AGENT_LIFECYCLE.encode(facts.lifecycle),
            computed=TASK_STATUS.encode(detail.agent),
        ),
        app=types.StatusDetail.App(
            health=APP_HEALTH.encode(facts.health), computed=TASK_STATUS.encode(detail.app)
        ),
    )
