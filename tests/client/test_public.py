"""What the package exports: dataclasses that can get fields, and exceptions that can be copied."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Iterator
from datetime import timedelta
from importlib import import_module
from typing import Any

import grpc
import pytest

import tasklogs
from tasklogs import errors

# The modules whose names programs import.
PUBLIC = (
    "tasklogs.client.backoff",
    "tasklogs.client.entry",
    "tasklogs.client.server_info",
    "tasklogs.client.events",
    "tasklogs.client.task",
    "tasklogs.connection.tls",
    "tasklogs.errors",
    "tasklogs.reasons",
    "tasklogs.client.new_entry",
    "tasklogs.client.upload",
    "tasklogs.publish.publisher",
)


def dataclasses_of(module: str) -> Iterator[type[Any]]:
    for name, value in vars(import_module(module)).items():
        if not inspect.isclass(value) or value.__module__ != module or name.startswith("_"):
            continue
        kind: type[Any] = value
        if dataclasses.is_dataclass(kind):
            yield kind


FOUND = [one for module in PUBLIC for one in dataclasses_of(module)]


def test_these_modules_have_every_dataclass_that_the_package_exports() -> None:
    exported = {getattr(tasklogs, name) for name in tasklogs.__all__}

    assert {one for one in exported if dataclasses.is_dataclass(one)} <= set(FOUND)
    assert len(FOUND) > 20


@pytest.mark.parametrize("kind", FOUND, ids=lambda one: one.__name__)
def test_a_public_dataclass_is_made_with_keywords_only(kind: type[Any]) -> None:
    """A field that a later version adds breaks nobody then."""
    assert all(field.kw_only for field in dataclasses.fields(kind) if field.init)
    assert kind.__match_args__ == ()
    if dataclasses.fields(kind):
        with pytest.raises(TypeError, match="positional"):
            kind("one")


@pytest.mark.parametrize("make", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize(
    "kind", [errors.TaskLogsRpcError, *errors.TaskLogsRpcError.__subclasses__()]
)
def test_an_error_can_be_copied_and_pickled(kind: type[errors.TaskLogsRpcError], make: Any) -> None:
    error = kind(
        code=grpc.StatusCode.NOT_FOUND,
        message="gone",
        reason="TASK_NOT_FOUND",
        metadata={"a": "b"},
        violations=(errors.FieldViolation(field="task", description="is empty"),),
        retry_after=timedelta(seconds=1),
        request_id="4f2a",
    )

    made = make(error)

    assert type(made) is kind
    assert dataclasses.asdict(made) == dataclasses.asdict(error)
