"""The table from domain errors to status and details."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import quote

import grpc
import pytest
from google.rpc import status_pb2

from tasklogs_server.domain import errors
from tasklogs_server.domain.limits import Limit
from tasklogs_server.domain.status import (
    AgentLifecycle,
    BuildTransition,
    Facts,
    JobStatus,
    derive,
)
from tasklogs_server.middleware.error_table import INTERNAL, TABLE, status_of
from tests.support.fixtures.refusals import Refusal, decoded

# Beyond this size gRPC turns a status into RESOURCE_EXHAUSTED.
METADATA_BYTES = 8192
MONSTROUS = "\U0001f4a5\u00e9\n\0" * 100_000
FAILED = derive(Facts(1, BuildTransition.START, JobStatus.FAILED, AgentLifecycle.READY, None))
SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Case:
    error: errors.TaskLogsError
    code: grpc.StatusCode
    kinds: tuple[str, ...]
    reason: str | None = None


CODE = grpc.StatusCode
CASES = (
    Case(errors.TaskNotFound("local/x"), CODE.NOT_FOUND, ("ErrorInfo",), "TASK_NOT_FOUND"),
    Case(
        errors.TaskStateConflict(FAILED),
        CODE.FAILED_PRECONDITION,
        ("ErrorInfo", "PreconditionFailure"),
        "TASK_STATE_CONFLICT",
    ),
    Case(
        errors.AgentUnreachable(SECOND, SECOND),
        CODE.UNAVAILABLE,
        ("ErrorInfo", "RetryInfo"),
        "AGENT_UNREACHABLE",
    ),
    Case(errors.TaskAppFailed("boom"), CODE.UNAVAILABLE, ("ErrorInfo",), "TASK_APP_ERROR"),
    Case(
        errors.InvalidFields([errors.FieldViolation("tail", "must not be negative")]),
        CODE.INVALID_ARGUMENT,
        ("BadRequest",),
    ),
    Case(
        errors.ProtocolViolation("hm"),
        CODE.INVALID_ARGUMENT,
        ("ErrorInfo",),
        "PROTOCOL_VIOLATION",
    ),
    Case(
        errors.TaskNameTaken("local", "x"), CODE.ALREADY_EXISTS, ("ErrorInfo",), "TASK_NAME_TAKEN"
    ),
    Case(errors.EtagMismatch(), CODE.ABORTED, ("ErrorInfo",), "ETAG_MISMATCH"),
    Case(errors.Unauthenticated("no"), CODE.UNAUTHENTICATED, ()),
    Case(errors.PermissionDenied("no"), CODE.PERMISSION_DENIED, ()),
    Case(
        errors.LimitExceeded(Limit.READS, "task", "60", SECOND),
        CODE.RESOURCE_EXHAUSTED,
        ("RetryInfo",),
    ),
    Case(
        errors.LimitExceeded(Limit.READS, "entry", "1 MiB", None),
        CODE.RESOURCE_EXHAUSTED,
        ("QuotaFailure",),
    ),
    Case(
        errors.LogFull(100, 1000, SECOND, SECOND),
        CODE.RESOURCE_EXHAUSTED,
        ("ErrorInfo", "QuotaFailure", "RetryInfo"),
        "LOG_FULL",
    ),
    Case(errors.CursorExpired("there"), CODE.OUT_OF_RANGE, ("ErrorInfo",), "CURSOR_EXPIRED"),
    Case(errors.CursorExpired(None), CODE.OUT_OF_RANGE, ("ErrorInfo",), "CURSOR_EXPIRED"),
    Case(
        errors.StoreUnavailable(SECOND),
        CODE.UNAVAILABLE,
        ("ErrorInfo", "RetryInfo"),
        "STORE_UNAVAILABLE",
    ),
    Case(errors.RequestTooSlow(SECOND), CODE.DEADLINE_EXCEEDED, ()),
    Case(errors.TookTooLong(SECOND), CODE.DEADLINE_EXCEEDED, ()),
    Case(
        errors.KeysUnavailable(SECOND),
        CODE.UNAVAILABLE,
        ("ErrorInfo", "RetryInfo"),
        "KEYS_UNAVAILABLE",
    ),
    Case(errors.ServerDraining(SECOND), CODE.UNAVAILABLE, ("ErrorInfo", "RetryInfo"), "DRAINING"),
    Case(errors.StoreBusy(SECOND), CODE.RESOURCE_EXHAUSTED, ("RetryInfo",)),
    Case(errors.LogCorrupt(), CODE.DATA_LOSS, ("ErrorInfo",), "LOG_CORRUPT"),
    Case(errors.StaleReport("old"), CODE.FAILED_PRECONDITION, ("ErrorInfo",), "STALE_REPORT"),
    Case(errors.SessionOpen(), CODE.FAILED_PRECONDITION, ("ErrorInfo",), "SESSION_OPEN"),
    Case(errors.SessionSuperseded(), CODE.ABORTED, ("ErrorInfo",), "SESSION_SUPERSEDED"),
    Case(errors.SessionLost(), CODE.ABORTED, ("ErrorInfo",), "SESSION_LOST"),
    Case(errors.CommitRefused(SECOND), CODE.INTERNAL, ("ErrorInfo", "RetryInfo"), "COMMIT_REFUSED"),
)

MONSTERS = (
    errors.TaskNotFound(MONSTROUS),
    errors.TaskAppFailed(MONSTROUS),
    errors.InvalidFields([errors.FieldViolation(MONSTROUS, MONSTROUS)]),
    errors.InvalidFields(
        [errors.FieldViolation(f"data.messages[{n}].id", "x") for n in range(999)]
    ),
    errors.ProtocolViolation(MONSTROUS),
    errors.TaskNameTaken(MONSTROUS, MONSTROUS),
    errors.Unauthenticated(MONSTROUS),
    errors.PermissionDenied(MONSTROUS),
    errors.LimitExceeded(Limit.READS, MONSTROUS, MONSTROUS, None),
    errors.StaleReport(MONSTROUS),
)


def test_every_domain_error_has_a_row_and_no_row_is_unused() -> None:
    assert set(TABLE) == set(_subclasses(errors.TaskLogsError))


def test_this_file_tries_every_row() -> None:
    assert {type(case.error) for case in CASES} == set(TABLE)


@pytest.mark.parametrize("case", CASES, ids=lambda case: type(case.error).__name__)
def test_an_error_has_a_code_details_and_a_message_of_one_line(case: Case) -> None:
    refusal = _refusal(status_of(case.error))

    assert refusal.code is case.code
    assert refusal.kinds == list(case.kinds)
    assert refusal.reason == case.reason
    assert refusal.message.startswith(case.error.message)
    assert "\n" not in refusal.message


def test_a_state_conflict_names_each_layer_and_what_is_possible() -> None:
    refusal = _refusal(status_of(errors.TaskStateConflict(FAILED)))

    assert refusal.metadata == {
        "status": "TASK_STATUS_ERROR",
        "build": "TASK_STATUS_ERROR",
        "agent": "TASK_STATUS_ACTIVE",
        "app": "TASK_STATUS_UNKNOWN",
    }
    violation = refusal.details[1].violations[0]
    assert (violation.type, violation.subject) == ("TASK_STATUS", "task")
    assert 'task status is "error"' in refusal.message
    assert "snapshot" in refusal.message


def test_the_task_apps_reason_is_in_the_message_and_in_the_metadata() -> None:
    refusal = _refusal(status_of(errors.TaskAppFailed("500 Internal Server Error")))

    assert "500 Internal Server Error" in refusal.message
    assert refusal.metadata["reason"] == "500 Internal Server Error"


def test_an_expired_cursor_comes_with_the_oldest_valid_one() -> None:
    assert _refusal(status_of(errors.CursorExpired("old"))).metadata == {"oldest_cursor": "old"}


def test_every_violation_names_its_field() -> None:
    violations = [errors.FieldViolation("tail", "a"), errors.FieldViolation("epoch", "b")]

    refusal = _refusal(status_of(errors.InvalidFields(violations)))

    assert refusal.fields == ["tail", "epoch"]


@pytest.mark.parametrize("error", MONSTERS, ids=lambda error: type(error).__name__)
def test_no_input_makes_a_status_too_large_to_send(error: errors.TaskLogsError) -> None:
    status = status_of(error)

    details = base64.b64encode(status.SerializeToString())
    message = quote(status.message.encode(), safe=" ~!#$&'()*+,-./:;<=>?@[]^_`{|}\"")
    assert len(details) + len(message) < METADATA_BYTES
    assert decoded(status) is not None


def test_an_error_without_a_row_is_internal_and_has_no_details() -> None:
    class Unheard(errors.TaskLogsError):
        pass

    assert status_of(Unheard()) == INTERNAL


def _subclasses(kind: type[errors.TaskLogsError]) -> Iterator[type[errors.TaskLogsError]]:
    for one in kind.__subclasses__():
        # Without the classes that tests define.
        if one.__module__ == errors.__name__:
            yield one
            yield from _subclasses(one)


def _refusal(status: status_pb2.Status) -> Refusal:
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    return Refusal(code, status.message, decoded(status))
