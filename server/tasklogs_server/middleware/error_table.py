"""The table from domain errors to gRPC status and details. No other place chooses a status."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details
from google.rpc.status_pb2 import Status

from tasklogs_server.domain import errors
from tasklogs_server.wire.enums import TASK_STATUS

DOMAIN = "tasklogs.v1"

# Message and details are sent as trailers. If they have more than 8 KB together, the client gets
# RESOURCE_EXHAUSTED instead. The message is sent twice: percent-encoded, with three bytes for each
# byte of non-ASCII text, and in the details, which take 4/3 of their size.
_TEXT_BYTES = 800
_VIOLATIONS_BYTES = 2000

E = TypeVar("E", bound=errors.TaskLogsError)


@dataclass(frozen=True, slots=True)
class _Row:
    code: grpc.StatusCode
    details: Callable[[errors.TaskLogsError], Sequence[Message]]


def _row(
    kind: type[E], code: grpc.StatusCode, *made: Callable[[E], Message]
) -> tuple[type[errors.TaskLogsError], _Row]:
    def all_details(error: errors.TaskLogsError) -> Sequence[Message]:
        return [make(cast("E", error)) for make in made]

    return kind, _Row(code, all_details)


def _info(reason: str, /, **metadata: str) -> Message:
    info: Message = details.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)
    return info


def _reason(reason: str) -> Callable[[errors.TaskLogsError], Message]:
    return lambda _: _info(reason)


def _retry(after: timedelta) -> Message:
    delay = Duration()
    delay.FromTimedelta(after)
    info: Message = details.RetryInfo(retry_delay=delay)
    return info


def _conflict(error: errors.TaskStateConflict) -> Message:
    detail = error.detail
    return _info(
        "TASK_STATE_CONFLICT",
        status=TASK_STATUS.name(detail.status),
        build=TASK_STATUS.name(detail.build),
        agent=TASK_STATUS.name(detail.agent),
        app=TASK_STATUS.name(detail.app),
    )


def _precondition(error: errors.TaskStateConflict) -> Message:
    violation = details.PreconditionFailure.Violation(
        type="TASK_STATUS", subject="task", description=_fit(error.message)
    )
    failure: Message = details.PreconditionFailure(violations=[violation])
    return failure


def _bad_request(error: errors.InvalidFields) -> Message:
    request = details.BadRequest()
    for one in error.violations:
        violation = details.BadRequest.FieldViolation(
            field=_fit(one.field), description=_fit(one.description)
        )
        if request.ByteSize() + violation.ByteSize() > _VIOLATIONS_BYTES:
            break
        request.field_violations.append(violation)
    message: Message = request
    return message


def _limit(error: errors.LimitExceeded) -> Message:
    if error.retry_after is not None:
        return _retry(error.retry_after)
    violation = details.QuotaFailure.Violation(
        subject=_fit(error.subject), description=_fit(error.description)
    )
    failure: Message = details.QuotaFailure(violations=[violation])
    return failure


def _full(error: errors.LogFull) -> Message:
    violation = details.QuotaFailure.Violation(subject="log", description=_fit(error.limit))
    failure: Message = details.QuotaFailure(violations=[violation])
    return failure


def _expired(error: errors.CursorExpired) -> Message:
    metadata = {} if error.oldest is None else {"oldest_cursor": error.oldest}
    return _info("CURSOR_EXPIRED", **metadata)


_CODE = grpc.StatusCode
TABLE: dict[type[errors.TaskLogsError], _Row] = dict(
    [
        _row(errors.TaskNotFound, _CODE.NOT_FOUND, _reason("TASK_NOT_FOUND")),
        _row(errors.TaskStateConflict, _CODE.FAILED_PRECONDITION, _conflict, _precondition),
        _row(
            errors.AgentUnreachable,
            _CODE.UNAVAILABLE,
            _reason("AGENT_UNREACHABLE"),
            lambda error: _retry(error.retry_after),
        ),
        _row(
            errors.TaskAppFailed,
            _CODE.UNAVAILABLE,
            lambda error: _info("TASK_APP_ERROR", reason=_fit(error.reason)),
        ),
        _row(errors.InvalidFields, _CODE.INVALID_ARGUMENT, _bad_request),
        _row(errors.ProtocolViolation, _CODE.INVALID_ARGUMENT, _reason("PROTOCOL_VIOLATION")),
        _row(errors.Unsupported, _CODE.INVALID_ARGUMENT, _reason("UNSUPPORTED")),
        _row(errors.TaskNameTaken, _CODE.ALREADY_EXISTS, _reason("TASK_NAME_TAKEN")),
        _row(errors.EtagMismatch, _CODE.ABORTED, _reason("ETAG_MISMATCH")),
        _row(errors.Unauthenticated, _CODE.UNAUTHENTICATED),
        _row(
            errors.KeysUnavailable,
            _CODE.UNAVAILABLE,
            _reason("KEYS_UNAVAILABLE"),
            lambda error: _retry(error.retry_after),
        ),
        _row(errors.PermissionDenied, _CODE.PERMISSION_DENIED),
        _row(errors.LimitExceeded, _CODE.RESOURCE_EXHAUSTED, _limit),
        _row(
            errors.LogFull,
            _CODE.RESOURCE_EXHAUSTED,
            _reason("LOG_FULL"),
            _full,
            lambda error: _retry(error.retry_after),
        ),
        _row(errors.RequestTooSlow, _CODE.DEADLINE_EXCEEDED),
        _row(errors.TookTooLong, _CODE.DEADLINE_EXCEEDED),
        _row(errors.CursorExpired, _CODE.OUT_OF_RANGE, _expired),
        _row(
            errors.StoreUnavailable,
            _CODE.UNAVAILABLE,
            _reason("STORE_UNAVAILABLE"),
            lambda error: _retry(error.retry_after),
        ),
        _row(errors.StoreBusy, _CODE.RESOURCE_EXHAUSTED, lambda error: _retry(error.retry_after)),
        _row(
            errors.ServerDraining,
            _CODE.UNAVAILABLE,
            _reason("DRAINING"),
            lambda error: _retry(error.retry_after),
        ),
        _row(errors.LogCorrupt, _CODE.DATA_LOSS, _reason("LOG_CORRUPT")),
        _row(errors.StaleReport, _CODE.FAILED_PRECONDITION, _reason("STALE_REPORT")),
        _row(errors.SessionOpen, _CODE.FAILED_PRECONDITION, _reason("SESSION_OPEN")),
        _row(errors.SessionSuperseded, _CODE.ABORTED, _reason("SESSION_SUPERSEDED")),
        _row(errors.SessionLost, _CODE.ABORTED, _reason("SESSION_LOST")),
        _row(
            errors.CommitRefused,
            _CODE.INTERNAL,
            _reason("COMMIT_REFUSED"),
            lambda error: _retry(error.retry_after),
        ),
    ]
)

INTERNAL = Status(code=_CODE.INTERNAL.value[0], message="internal error")


def status_of(error: errors.TaskLogsError) -> Status:
    """Return what the caller of a failed call is told."""
    row = TABLE.get(type(error))
    if row is None:
        return INTERNAL
    status = Status(code=row.code.value[0], message=_fit(_message_of(error)))
    for detail in row.details(error):
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _fit(text: str) -> str:
    encoded = text.encode()
    if len(encoded) <= _TEXT_BYTES:
        return text
    return encoded[:_TEXT_BYTES].decode(errors="ignore") + "..."


def _message_of(error: errors.TaskLogsError) -> str:
    if isinstance(error, errors.TaskAppFailed):
        return f"{error.message}: {error.reason}"
    return error.message
