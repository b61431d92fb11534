"""The enums that --help shows are those of the API."""

from __future__ import annotations

from enum import StrEnum

import pytest

from tasklogs.cli import choices
from tasklogs.v1 import task_logs_pb2, types_pb2


@pytest.mark.parametrize(
    ("choice", "api_names"),
    [
        (choices.TaskStatus, types_pb2.TaskStatus.keys()),
        (choices.BuildTransition, types_pb2.BuildTransition.keys()),
        (choices.JobStatus, types_pb2.JobStatus.keys()),
        (choices.AgentLifecycle, types_pb2.AgentLifecycle.keys()),
        (choices.AppHealth, types_pb2.AppHealth.keys()),
        (choices.LogSource, task_logs_pb2.LogSource.keys()),
    ],
)
def test_every_value_of_the_api_but_the_unspecified_one_can_be_typed(
    choice: type[StrEnum], api_names: list[str]
) -> None:
    # The first value of each enum is its _UNSPECIFIED.
    assert [choices.proto_name(value) for value in choice] == api_names[1:]
    assert [value.value for value in choice] == [
        choices.typed_name(choice.__name__, name) for name in api_names[1:]
    ]
