"""The protos' enums and the domain's: the same names, with and without their prefix."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Generic, TypeVar

from tasklogs.v1 import types_pb2 as types
from tasklogs_server.domain.errors import FieldViolation
from tasklogs_server.domain.status import (
    AgentLifecycle,
    AppHealth,
    BuildTransition,
    JobStatus,
    TaskStatus,
)

D = TypeVar("D", bound=StrEnum)
W = TypeVar("W", bound=int)


class EnumCodec(Generic[D, W]):
    """One enum both ways. The wire's 0 (unspecified) is None in the domain."""

    def __init__(self, domain: type[D], prefix: str, wire: Mapping[str, W]) -> None:
        self._prefix = prefix
        self._unspecified = wire[f"{prefix}_UNSPECIFIED"]
        self._to_wire = {value: wire[f"{prefix}_{value}"] for value in domain}
        self._to_domain = {int(number): value for value, number in self._to_wire.items()}

    def encode(self, value: D | None) -> W:
        """Return the wire's value."""
        return self._unspecified if value is None else self._to_wire[value]

    def decode(self, number: int, field: str, violations: list[FieldViolation]) -> D | None:
        """Return the domain's value, None for unspecified; an unknown number is a violation."""
        value = self._to_domain.get(number)
        if value is None and number != self._unspecified:
            violations.append(FieldViolation(field, f"{number} is not a {self._prefix} value"))
        return value

    def name(self, value: D | None) -> str:
        """Return the whole name, as in the protos."""
        return f"{self._prefix}_{value or 'UNSPECIFIED'}"


TASK_STATUS = EnumCodec(TaskStatus, "TASK_STATUS", dict(types.TaskStatus.items()))
BUILD_TRANSITION = EnumCodec(
    BuildTransition, "BUILD_TRANSITION", dict(types.BuildTransition.items())
)
JOB_STATUS = EnumCodec(JobStatus, "JOB_STATUS", dict(types.JobStatus.items()))
AGENT_LIFECYCLE = EnumCodec(AgentLifecycle, "AGENT_LIFECYCLE", dict(types.AgentLifecycle.items()))
APP_HEALTH = EnumCodec(AppHealth, "APP_HEALTH", dict(types.AppHealth.items()))
