"""The enums of the protos and of the domain have the same names."""

from __future__ import annotations

from enum import StrEnum

import pytest

from tasklogs.v1 import types_pb2 as types
from tasklogs_server.domain.errors import FieldViolation
from tasklogs_server.domain.status import (
    AgentLifecycle,
    AppHealth,
    BuildTransition,
    JobStatus,
    TaskStatus,
)
from tasklogs_server.wire import enums

ENUMS = [
    (TaskStatus, types.TaskStatus, enums.TASK_STATUS),
    (BuildTransition, types.BuildTransition, enums.BUILD_TRANSITION),
    (JobStatus, types.JobStatus, enums.JOB_STATUS),
    (AgentLifecycle, types.AgentLifecycle, enums.AGENT_LIFECYCLE),
    (AppHealth, types.AppHealth, enums.APP_HEALTH),
]


@pytest.mark.parametrize(("domain", "wire", "codec"), ENUMS, ids=[one[0].__name__ for one in ENUMS])
def test_every_value_is_decoded_as_it_was_encoded(
    domain: type[StrEnum], wire: object, codec: enums.EnumCodec[StrEnum, int]
) -> None:
    names = {number: name for name, number in wire.items()}  # type: ignore[attr-defined]
    assert len(names) == len(domain) + 1
    violations: list[FieldViolation] = []
    for value in [*domain, None]:
        assert codec.decode(codec.encode(value), "field", violations) is value
        assert names[codec.encode(value)] == codec.name(value)
    assert not violations
    assert codec.decode(99, "field", violations) is None
    assert [one.field for one in violations] == ["field"]
