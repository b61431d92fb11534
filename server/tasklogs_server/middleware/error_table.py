"""The table from domain errors to gRPC status and details. No other place chooses a status.

The code, and whether a caller may retry, are those of the reason (`tasklogs.reasons`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, TypeVar, cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details
from google.rpc.status_pb2 import Status

from tasklogs.reasons import DOMAIN, REASONS, Retry
from tasklogs_server.domain import errors
from tasklogs_server.wire.enums import TASK_STATUS

# Message and details are sent as trailers. If they have more than 8 KB together, the client gets
# RESOURCE_EXHAUSTED instead. The message is sent twice: percent-encoded, with three bytes for each
# byte of non-ASCII text, and in the details, which take 4/3 of their size.
_TEXT_BYTES = 800
_VIOLATIONS_BYTES = 2000

E = TypeVar("E", bound=errors.TaskLogsError)


class _HasRetryAfter(Protocol):
    retry_after: timedelta


@dataclass(frozen=True, slots=True)
class _Row:
    """What callers are told of one kind of error. RequestInfo and RetryInfo are not in the row."""

    reason: Callable[[errors.TaskLogsError], str]
    metadata: Callable[[errors.TaskLogsError], Mapping[str, str]]
    details: Callable[[errors.TaskLogsError], Sequence[Message]]


def _row(
    kind: type[E],
    reason: str | Callable[[E], str],
    *made: Callable[[E], Message | None],
    metadata: Callable[[E], Mapping[str, str]] = lambda _: {},
) -> tuple[type[errors.TaskLogsError], _Row]:
    """Return a row: the reason, `ErrorInfo.metadata`, and the details besides ErrorInfo."""

    def reason_of(error: errors.TaskLogsError) -> str:
        return reason if isinstance(reason, str) else reason(cast("E", error))

    def metadata_of(error: errors.TaskLogsError) -> Mapping[str, str]:
        return metadata(cast("E", error))

    def all_details(error: errors.TaskLogsError) -> Sequence[Message]:
        details = [make(cast("E", error)) for make in made]
        return [one for one in details if one is not None]

    return kind, _Row(reason_of, metadata_of, all_details)


def _retry(after: timedelta) -> Message:
    delay = Duration()
    delay.FromTimedelta(after)
    info: Message = details.RetryInfo(retry_delay=delay)
    return info


def _layers(error: errors.TaskStateConflict) -> Mapping[str, str]:
    detail = error.detail
    return {
        "status": TASK_STATUS.name(detail.status),
        "build": TASK_STATUS.name(detail.build),
        "agent": TASK_STATUS.name(detail.agent),
        "app": TASK_STATUS.name(detail.app),
    }


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


def _limit_reason(error: errors.LimitExceeded) -> str:
    return "LIMIT_EXCEEDED" if error.retry_after is None else "TOO_MANY_REQUESTS"


def _limit(error: errors.LimitExceeded) -> Message | None:
    if error.retry_after is not None:
        return None
    violation = details.QuotaFailure.Violation(
        subject=_fit(error.subject), description=_fit(error.description)
    )
    failure: Message = details.QuotaFailure(violations=[violation])
    return failure


def _full(error: errors.LogFull) -> Message:
    violation = details.QuotaFailure.Violation(subject="log", description=_fit(error.limit))
    failure: Message = details.QuotaFailure(violations=[violation])
    return failure


def _oldest(error: errors.CursorExpired) -> Mapping[str, str]:
    return {} if error.oldest is None else {"oldest_cursor": error.oldest}


def _apps_words(error: errors.TaskAppFailed) -> Mapping[str, str]:
    return {"reason": _fit(error.reason)}


# A new error needs its class in domain/errors.py, a row here, and its reason in tasklogs/reasons.py
# and in a comment of the protos. Tests compare all four.
TABLE: dict[type[errors.TaskLogsError], _Row] = dict(
    [
        _row(errors.InvalidFields, "INVALID_FIELDS", _bad_request),
        _row(errors.Unsupported, "UNSUPPORTED"),
        _row(errors.ProtocolViolation, "PROTOCOL_VIOLATION"),
        _row(errors.TaskNotFound, "TASK_NOT_FOUND"),
        _row(errors.ServiceUnknown, "SERVICE_UNKNOWN"),
        _row(errors.TaskNameTaken, "TASK_NAME_TAKEN"),
        _row(errors.EtagMismatch, "ETAG_MISMATCH"),
        _row(errors.TaskStateConflict, "TASK_STATE_CONFLICT", _precondition, metadata=_layers),
        _row(errors.StaleReport, "STALE_REPORT"),
        _row(errors.BuildNotReported, "BUILD_NOT_REPORTED"),
        _row(errors.TaskStandalone, "TASK_STANDALONE"),
        _row(errors.SessionOpen, "SESSION_OPEN"),
        _row(errors.SessionSuperseded, "SESSION_SUPERSEDED"),
        _row(errors.SessionLost, "SESSION_LOST"),
        _row(errors.CursorExpired, "CURSOR_EXPIRED", metadata=_oldest),
        _row(errors.TokenMissing, "TOKEN_MISSING"),
        _row(errors.Unauthenticated, "TOKEN_INVALID"),
        _row(errors.TokenExpired, "TOKEN_EXPIRED"),
        _row(errors.CertificateInvalid, "CERTIFICATE_INVALID"),
        _row(errors.KeysUnavailable, "KEYS_UNAVAILABLE"),
        _row(errors.PermissionDenied, "PERMISSION_DENIED"),
        _row(errors.LimitExceeded, _limit_reason, _limit),
        _row(errors.LogFull, "LOG_FULL", _full),
        _row(errors.StoreBusy, "STORE_BUSY"),
        _row(errors.RequestTooSlow, "REQUEST_TOO_SLOW"),
        _row(errors.TookTooLong, "DEFAULT_DEADLINE_EXCEEDED"),
        _row(errors.MethodUnknown, "METHOD_UNKNOWN"),
        _row(errors.AgentUnreachable, "AGENT_UNREACHABLE"),
        _row(errors.TaskAppFailed, "TASK_APP_ERROR", metadata=_apps_words),
        _row(errors.StoreUnavailable, "STORE_UNAVAILABLE"),
        _row(errors.ServerDraining, "DRAINING"),
        _row(errors.CommitRefused, "COMMIT_REFUSED"),
        _row(errors.LogCorrupt, "LOG_CORRUPT"),
    ]
)
_UNMAPPED = "INTERNAL"


def status_of(error: errors.TaskLogsError, request_id: str) -> Status:
    """Return what the caller of a failed call is told. `request_id` empty: there is none."""
    row = TABLE.get(type(error))
    if row is None:
        return internal(request_id)
    reason = row.reason(error)
    made = list(row.details(error))
    if REASONS[reason].retry is Retry.AFTER:
        made.append(_retry(cast("_HasRetryAfter", error).retry_after))
    return _status(reason, _message_of(error), row.metadata(error), made, request_id)


def internal(request_id: str) -> Status:
    """Return what the caller is told of an error that has no row."""
    return _status(_UNMAPPED, "internal error", {}, [], request_id)


def _status(
    reason: str,
    message: str,
    metadata: Mapping[str, str],
    others: Sequence[Message],
    request_id: str,
) -> Status:
    status = Status(code=REASONS[reason].code.value[0], message=_fit(message))
    info = details.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)
    for detail in (info, *others):
        status.details.add().Pack(detail)
    if request_id:
        status.details.add().Pack(details.RequestInfo(request_id=request_id))
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
