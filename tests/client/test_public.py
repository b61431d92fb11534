"""What the package exports: dataclasses that can get fields, and exceptions that can be copied."""

from __future__ import annotations

import ast
import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
import typing
from collections.abc import Iterator
from datetime import timedelta
from importlib import import_module
from typing import Any

import grpc
import pytest

import tasklogs
from tasklogs import errors, reasons

# The modules whose names programs import.
PUBLIC = (
    "tasklogs.client.backoff",
    "tasklogs.client.retry",
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


def named_by(kind: Any) -> Iterator[Any]:
    """Yield the types that the public fields, properties and methods of a class name."""
    yield from typing.get_type_hints(kind).values()
    for name, member in inspect.getmembers(kind):
        if name.startswith("_") and name != "__init__":
            continue
        function = member.fget if isinstance(member, property) else member
        if inspect.isfunction(function) or inspect.ismethod(function):
            home = vars(import_module(function.__module__))
            yield from typing.get_type_hints(function, home).values()


def leaves(hint: Any) -> Iterator[Any]:
    """Yield the classes that a type is made of."""
    for one in hint if isinstance(hint, list) else typing.get_args(hint):
        yield from leaves(one)
    kind = typing.get_origin(hint) or hint
    if inspect.isclass(kind):
        yield kind


PUBLIC_CLASSES = sorted(
    {
        one
        for home in (tasklogs, errors, reasons)
        for name in home.__all__
        if inspect.isclass(one := getattr(home, name)) and one.__module__.startswith("tasklogs.")
    },
    key=lambda one: f"{one.__module__}.{one.__qualname__}",
)
# Only the library makes these: nobody names what their constructors take.
MADE_BY_THE_LIBRARY = (
    tasklogs.Follow,
    tasklogs.OpenEntry,
    tasklogs.SyncFollow,
    tasklogs.SyncOpenEntry,
    tasklogs.SyncTaskList,
    tasklogs.SyncTaskLog,
    tasklogs.TaskList,
    tasklogs.TaskLog,
)


@pytest.mark.parametrize("kind", PUBLIC_CLASSES, ids=lambda one: one.__name__)
def test_every_type_that_a_public_class_names_is_exported(kind: type[Any]) -> None:
    made_by = typing.get_type_hints(kind.__init__, vars(import_module(kind.__module__)))
    left_out = made_by.values() if kind in MADE_BY_THE_LIBRARY else ()

    hidden = {
        leaf.__qualname__
        for hint in named_by(kind)
        if hint not in left_out
        for leaf in leaves(hint)
        if leaf.__module__.startswith("tasklogs") and leaf not in PUBLIC_CLASSES
    }

    assert hidden == set()


def test_the_package_and_its_public_modules_export_nothing_of_others() -> None:
    for home in (errors, reasons):
        for name in home.__all__:
            made_in = getattr(getattr(home, name), "__module__", home.__name__)
            assert made_in in (home.__name__, "grpc"), name
    assert set(tasklogs.__all__) <= set(dir(tasklogs))


def test_errors_and_reasons_need_no_import_of_their_own() -> None:
    program = "import tasklogs; print(tasklogs.errors.TaskNotFound, tasklogs.reasons.REASONS)"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100
    )
    assert "TaskNotFound" in ran.stdout


def test_the_status_code_of_type_checkers_is_that_of_grpc() -> None:
    """At run time the class is gRPC's, so only the source has the one for type checkers."""
    at_run_time: object = tasklogs.StatusCode
    assert at_run_time is grpc.StatusCode
    tree = ast.parse(inspect.getsource(import_module("tasklogs.status_code")))
    [written] = [one for one in ast.walk(tree) if isinstance(one, ast.ClassDef)]
    members = {
        ast.unparse(line.targets[0]): ast.literal_eval(line.value)
        for line in written.body
        if isinstance(line, ast.Assign)
    }
    assert members == {one.name: one.value for one in grpc.StatusCode}
