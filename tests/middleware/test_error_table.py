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

from tasklogs.reasons import REASONS, Retry
from tasklogs_server.domain import errors
from tasklogs_server.domain.limits import Limit
from tasklogs_server.domain.status import (
    AgentLifecycle,
    BuildTransition,
    Facts,
    JobStatus,
    derive,
)
from tasklogs_server.middleware.error_table import TABLE, internal, status_of
from tests.support.fixtures.refusals import Refusal, decoded, refusal_with

# Beyond this size gRPC turns a status into RESOURCE_EXHAUSTED.
METADATA_BYTES = 8192
MONSTROUS = "\U0001f4a5\u00e9\n\0" * 100_000
FAILED = derive(Facts(1, BuildTransition.START, JobStatus.FAILED, AgentLifecycle.READY, None))
SECOND = timedelta(seconds=1)
REQUEST_ID = "i" * 128


@dataclass(frozen=True)
class Case:
    error: errors.TaskLogsError
    reason: str
    others: tuple[str, ...] = ()
    """The details besides ErrorInfo and RequestInfo."""


CASES = (
    Case(
        errors.InvalidFields([errors.FieldViolation("tail", "must not be negative")]),
        "INVALID_FIELDS",
        ("BadRequest",),
    ),
    Case(errors.Unsupported("entries of type 99"), "UNSUPPORTED"),
    Case(errors.ProtocolViolation("hm"), "PROTOCOL_VIOLATION"),
    Case(errors.TaskNotFound("local/x"), "TASK_NOT_FOUND"),
    Case(errors.ServiceUnknown(), "SERVICE_UNKNOWN"),
    Case(errors.TaskNameTaken("local", "x"), "TASK_NAME_TAKEN"),
    Case(errors.EtagMismatch(), "ETAG_MISMATCH"),
    Case(errors.TaskStateConflict(FAILED), "TASK_STATE_CONFLICT", ("PreconditionFailure",)),
    Case(errors.StaleReport("old"), "STALE_REPORT"),
    Case(errors.BuildNotReported(3), "BUILD_NOT_REPORTED"),
    Case(errors.TaskStandalone(), "TASK_STANDALONE"),
    Case(errors.SessionOpen(), "SESSION_OPEN"),
    Case(errors.SessionSuperseded(), "SESSION_SUPERSEDED"),
    Case(errors.SessionLost(), "SESSION_LOST"),
    Case(errors.CursorExpired("there"), "CURSOR_EXPIRED"),
    Case(errors.CursorExpired(None), "CURSOR_EXPIRED"),
    Case(errors.TokenMissing("no"), "TOKEN_MISSING"),
    Case(errors.Unauthenticated("no"), "TOKEN_INVALID"),
    Case(errors.TokenExpired(), "TOKEN_EXPIRED"),
    Case(errors.CertificateInvalid("no"), "CERTIFICATE_INVALID"),
    Case(errors.KeysUnavailable(SECOND), "KEYS_UNAVAILABLE", ("RetryInfo",)),
    Case(errors.PermissionDenied("no"), "PERMISSION_DENIED"),
    Case(
        errors.LimitExceeded(Limit.READS, "task", "60", SECOND),
        "TOO_MANY_REQUESTS",
        ("RetryInfo",),
    ),
    Case(
        errors.LimitExceeded(Limit.READS, "entry", "1 MiB", None),
        "LIMIT_EXCEEDED",
        ("QuotaFailure",),
    ),
    Case(errors.LogFull(100, 1000, SECOND, SECOND), "LOG_FULL", ("QuotaFailure", "RetryInfo")),
    Case(errors.StoreBusy(SECOND), "STORE_BUSY", ("RetryInfo",)),
    Case(errors.RequestTooSlow(SECOND), "REQUEST_TOO_SLOW"),
    Case(errors.TookTooLong(SECOND), "DEFAULT_DEADLINE_EXCEEDED"),
    Case(errors.MethodUnknown(), "METHOD_UNKNOWN"),
    Case(errors.AgentUnreachable(SECOND, SECOND), "AGENT_UNREACHABLE", ("RetryInfo",)),
    Case(errors.TaskAppFailed("boom"), "TASK_APP_ERROR"),
    Case(errors.StoreUnavailable(SECOND), "STORE_UNAVAILABLE", ("RetryInfo",)),
    Case(errors.ServerDraining(SECOND), "DRAINING", ("RetryInfo",)),
    Case(errors.CommitRefused(SECOND), "COMMIT_REFUSED", ("RetryInfo",)),
    Case(errors.LogCorrupt(), "LOG_CORRUPT"),
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
    refusal = _refusal(told(case.error))

    assert refusal.reason == case.reason
    assert refusal.code is REASONS[case.reason].code
    assert refusal.kinds == ["ErrorInfo", *case.others]
    assert refusal.request_id == REQUEST_ID
    assert refusal.message.startswith(case.error.message)
    assert "\n" not in refusal.message


def test_a_state_conflict_names_each_layer_and_what_is_possible() -> None:
    refusal = _refusal(told(errors.TaskStateConflict(FAILED)))

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
    refusal = _refusal(told(errors.TaskAppFailed("500 Internal Server Error")))

    assert "500 Internal Server Error" in refusal.message
    assert refusal.metadata["reason"] == "500 Internal Server Error"


def test_an_expired_cursor_comes_with_the_oldest_valid_one() -> None:
    assert _refusal(told(errors.CursorExpired("old"))).metadata == {"oldest_cursor": "old"}


def test_every_violation_names_its_field() -> None:
    violations = [errors.FieldViolation("tail", "a"), errors.FieldViolation("epoch", "b")]

    refusal = _refusal(told(errors.InvalidFields(violations)))

    assert refusal.fields == ["tail", "epoch"]


@pytest.mark.parametrize("error", MONSTERS, ids=lambda error: type(error).__name__)
def test_no_input_makes_a_status_too_large_to_send(error: errors.TaskLogsError) -> None:
    status = told(error)

    details = base64.b64encode(status.SerializeToString())
    message = quote(status.message.encode(), safe=" ~!#$&'()*+,-./:;<=>?@[]^_`{|}\"")
    trailers = {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-status": "10",
        "grpc-message": message,
        "grpc-status-details-bin": details.decode(),
        "x-request-id": REQUEST_ID,
    }
    # As RFC 9113 (6.5.2) counts a field: 32 bytes more than its name and its value.
    size = sum(len(name) + len(value) + 32 for name, value in trailers.items())
    assert size < METADATA_BYTES
    assert decoded(status) is not None


def test_an_error_without_a_row_is_internal_and_says_nothing() -> None:
    class Unheard(errors.TaskLogsError):
        def __str__(self) -> str:
            return "a secret"

    refusal = _refusal(told(Unheard()))

    assert told(Unheard()) == internal(REQUEST_ID)
    assert (refusal.code, refusal.message) == (grpc.StatusCode.INTERNAL, "internal error")
    assert (refusal.kinds, refusal.reason) == (["ErrorInfo"], "INTERNAL")
    assert refusal.request_id == REQUEST_ID


def test_an_error_outside_of_a_call_has_no_request_info() -> None:
    assert _refusal(status_of(errors.ServiceUnknown(), "")).request_id is None


def test_every_reason_is_that_of_an_error() -> None:
    assert {case.reason for case in CASES} | {"INTERNAL"} == set(REASONS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: type(case.error).__name__)
def test_an_error_has_retry_info_if_its_reason_is_retried_after_a_time(case: Case) -> None:
    refusal = _refusal(told(case.error))

    assert (refusal.retry_seconds is not None) == (REASONS[case.reason].retry is Retry.AFTER)


def told(error: errors.TaskLogsError) -> status_pb2.Status:
    return status_of(error, REQUEST_ID)


def _subclasses(kind: type[errors.TaskLogsError]) -> Iterator[type[errors.TaskLogsError]]:
    for one in kind.__subclasses__():
        # Without the classes that tests define.
        if one.__module__ == errors.__name__:
            yield one
            yield from _subclasses(one)


def _refusal(status: status_pb2.Status) -> Refusal:
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    return refusal_with(code, status.message, decoded(status))
