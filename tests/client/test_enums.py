"""Values of enums that a newer server sends: their numbers are kept."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from tasklogs import enums
from tasklogs.client import decode
from tasklogs.v1 import tasks_pb2, types_pb2

OF_RESPONSES = (
    enums.TaskStatus,
    enums.BuildTransition,
    enums.JobStatus,
    enums.AgentLifecycle,
    enums.AppHealth,
    enums.TaskLogType,
)
NUMBERS = (99, 2**31 - 1, -1, -(2**31))


@pytest.mark.parametrize("kind", OF_RESPONSES)
@pytest.mark.parametrize("number", NUMBERS)
def test_an_unknown_number_is_kept(kind: type[enums.TaskStatus], number: int) -> None:
    unknown = kind(number)

    assert isinstance(unknown, kind)
    assert (unknown.value, int(unknown), unknown.name) == (number, number, f"UNRECOGNIZED_{number}")
    assert not unknown.is_recognized
    assert repr(unknown) == f"<{kind.__name__}.UNRECOGNIZED_{number}: {number}>"
    assert f"{unknown}" == str(unknown) == str(number)  # as every IntEnum


@pytest.mark.parametrize("kind", OF_RESPONSES)
def test_known_members_are_recognized_and_unknown_ones_are_not_added(
    kind: type[enums.TaskStatus],
) -> None:
    before = list(kind)
    kind(99)

    assert all(member.is_recognized for member in kind)
    assert list(kind) == before
    assert "UNRECOGNIZED_99" not in kind.__members__


@pytest.mark.parametrize("kind", OF_RESPONSES)
def test_unknown_members_survive_pickle_and_copy(kind: type[enums.TaskStatus]) -> None:
    for member in (kind(99), *kind):
        for made in (
            *(pickle.loads(pickle.dumps(member, protocol)) for protocol in range(2, 6)),
            copy.copy(member),
            copy.deepcopy(member),
        ):
            assert type(made) is kind
            assert made is member


def test_equal_numbers_are_equal_and_have_one_hash_even_after_they_left_the_cache() -> None:
    first = enums.TaskStatus(99)
    for number in range(1000, 3000):
        enums.TaskStatus(number)
    again = enums.TaskStatus(99)

    assert again is not first
    assert (again == first, hash(again) == hash(first), {first: 1}[again]) == (True, True, 1)
    assert first != enums.TaskStatus(98)
    assert enums.TaskStatus(99) is enums.TaskStatus(99)


def test_a_server_that_sends_many_numbers_does_not_fill_the_memory() -> None:
    for number in range(10_000, 20_000):
        enums.TaskLogType(number)

    assert enums._unrecognized.cache_info().currsize <= 256
    assert len(enums.TaskLogType._value2member_map_) == len(enums.TaskLogType)


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, "1", 1.5, None])
def test_what_is_no_number_of_an_enum_is_refused(number: Any) -> None:
    with pytest.raises(ValueError, match="is not a valid TaskStatus"):
        enums.TaskStatus(number)


def test_a_source_that_does_not_exist_is_refused() -> None:
    """The enum is only sent: nothing unknown comes from a server."""
    with pytest.raises(ValueError, match="is not a valid LogSource"):
        enums.LogSource(99)


def test_a_task_of_a_newer_server_keeps_every_number() -> None:
    message = tasks_pb2.Task(status=99)  # type: ignore[arg-type]
    message.status_detail.build.transition = 98  # type: ignore[assignment]
    message.status_detail.build.job_status = 97  # type: ignore[assignment]
    message.status_detail.agent.lifecycle = 96  # type: ignore[assignment]
    message.status_detail.app.health = 95  # type: ignore[assignment]

    task = decode.task(message, has_prompt=True)

    detail = task.status_detail
    assert [
        *(task.status, detail.build.transition, detail.build.job_status),
        *(detail.agent.lifecycle, detail.app.health),
    ] == [99, 98, 97, 96, 95]


def test_an_entry_of_an_unknown_type_keeps_its_number() -> None:
    message = types_pb2.TaskLogEntry(type=99)  # type: ignore[arg-type]

    assert decode.entry(message).type.name == "UNRECOGNIZED_99"
