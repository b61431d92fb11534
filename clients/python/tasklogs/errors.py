"""The errors of calls of tasklogs.v1: code, reason, fields, and when to retry.

Each error that a program may handle differently has its own subclass of TaskLogsRpcError.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from dataclasses import fields as dataclass_fields
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tasklogs.enums import TaskStatus
from tasklogs.reasons import DOMAIN, REASONS, Retry
from tasklogs.status_code import StatusCode

__all__ = [
    "AgentUnreachable",
    "AnswerUnreadable",
    "BuildNotReported",
    "ClientClosed",
    "CursorExpired",
    "DeadlineExceeded",
    "EtagMismatch",
    "FailedPrecondition",
    "FieldViolation",
    "InvalidArgument",
    "LimitExceeded",
    "LogCorrupt",
    "PermissionDenied",
    "QuotaViolation",
    "ServerDraining",
    "StaleReport",
    "StatusCode",
    "StoreUnavailable",
    "StreamInconsistent",
    "TaskAppFailed",
    "TaskLogsRpcError",
    "TaskNameTaken",
    "TaskNotFound",
    "TaskStandalone",
    "TaskStateConflict",
    "TokenUnavailable",
    "Unauthenticated",
    "Unavailable",
    "UnsupportedByServer",
]

# gRPC turns such an answer into a status: 401 into UNAUTHENTICATED, 404 into UNIMPLEMENTED.
_HTTP_ANSWER = re.compile(r"Received http2 header with status: (\d{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """An invalid field of the request, and why it is invalid."""

    field: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaViolation:
    """A limit that was exceeded, and its subject."""

    subject: str
    description: str


# Not frozen: Python itself sets attributes of an exception while it is raised.
@dataclass(eq=False, kw_only=True)
class TaskLogsRpcError(Exception):
    """A call failed. What the server did not send is None or empty.

    If the server cannot be reached, or is not a TaskLogs server, there are only code and message.
    """

    code: StatusCode | Any
    """A `grpc.StatusCode`. `Any` lets programs that have stubs of grpcio compare it with theirs."""
    message: str
    reason: str | None = None
    """`ErrorInfo.reason`, for instance `TASK_NOT_FOUND`: stable, for programs."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """`ErrorInfo.metadata`; for `TASK_STATE_CONFLICT`, the result of each layer of the status."""
    violations: tuple[FieldViolation, ...] = ()
    """`BadRequest`: the invalid fields."""
    retry_after: timedelta | None = None
    """`RetryInfo`: an earlier retry would fail, too."""
    quota_violations: tuple[QuotaViolation, ...] = ()
    """`QuotaFailure`: the limits that were exceeded."""
    request_id: str | None = None
    """The name of the call in the server's log. None: no TaskLogs server answered."""

    @property
    def is_from_the_server(self) -> bool:
        """Whether a TaskLogs server said this. Else a proxy, the network or gRPC itself did."""
        return self.reason is not None

    @property
    def http_status(self) -> int | None:
        """The HTTP status, if something answered that does not speak gRPC: a proxy, most likely."""
        found = _HTTP_ANSWER.fullmatch(self.message) if self.reason is None else None
        return None if found is None else int(found[1])

    @property
    def retry(self) -> Retry | None:
        """Whether to make the same call again: tasklogs.reasons. None: the reason is not known."""
        known = REASONS.get(self.reason or "")
        if known is not None:
            return known.retry
        return None if self.retry_after is None else Retry.AFTER

    def __reduce__(self) -> tuple[object, ...]:
        # Exception's own would call the class with positional arguments.
        fields = {one.name: getattr(self, one.name) for one in dataclass_fields(self)}
        return partial(type(self), **fields), ()

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.code.name}: {self.message}{reason}"

    @staticmethod
    def from_rpc_error(error: grpc.aio.AioRpcError) -> TaskLogsRpcError:
        """Parse the error that a stub raised. Details that cannot be decoded are ignored."""
        details = _Details()
        status = _status(error)
        if status is not None:
            details.take(status)
        kind = KINDS.get((error.code(), details.reason)) or KINDS.get((error.code(), None))
        return (kind or TaskLogsRpcError)(
            code=error.code(),
            message=error.details() or "",
            reason=details.reason,
            metadata=details.metadata,
            violations=details.violations,
            retry_after=details.retry_after,
            quota_violations=details.quota_violations,
            request_id=details.request_id or _request_id(error),
        )


class ClientClosed(RuntimeError):
    """The client is not open: not yet, no longer, or it was closed during the call."""

    def __init__(self) -> None:
        super().__init__(
            "the client is not open: use it inside `with` or `async with`, or call `connect` first"
        )


class TaskNotFound(TaskLogsRpcError):
    """The task does not exist, was deleted, or is another owner's. All three look the same."""


class FailedPrecondition(TaskLogsRpcError):
    """The state of the task does not allow the call. `reason` says which rule."""


class TaskStateConflict(FailedPrecondition):
    """The task's status does not allow the read. A read of the snapshot is possible."""

    @property
    def status(self) -> TaskStatus:
        """The status of the task."""
        return _status_named(self.metadata.get("status", ""))


class StaleReport(FailedPrecondition):
    """The report is on an older build, or moves backwards. It changed nothing."""


class BuildNotReported(FailedPrecondition):
    """The report is on the agent of a build that was not reported before. It changed nothing."""


class TaskStandalone(FailedPrecondition):
    """The task is standalone: there are no reports on it. The report changed nothing."""


class InvalidArgument(TaskLogsRpcError):
    """The request has invalid fields: `violations` names each."""


class TaskNameTaken(TaskLogsRpcError):
    """The owner already has a task with that name."""


class EtagMismatch(TaskLogsRpcError):
    """The task was updated after it was read. Read it again, and repeat the update with its etag.

    Nothing was changed.
    """


class CursorExpired(TaskLogsRpcError):
    """The entries that a cursor or a page token points to have been evicted."""

    @property
    def oldest_cursor(self) -> str | None:
        """The cursor of the oldest entry that is still stored. What was before it is lost."""
        return self.metadata.get("oldest_cursor")


class Unauthenticated(TaskLogsRpcError):
    """The credentials are missing, invalid or expired."""


class TokenUnavailable(TaskLogsRpcError):
    """The function for the token raised `__cause__` while a follow reconnected.

    `code` is UNAUTHENTICATED; no call was made.
    """


class PermissionDenied(TaskLogsRpcError):
    """The caller does not have the right to make this call."""


class LimitExceeded(TaskLogsRpcError):
    """A limit was exceeded: see `quota_violations`, or retry after `retry_after`."""


class DeadlineExceeded(TaskLogsRpcError):
    """There was no response within the caller's time-out."""


class Unavailable(TaskLogsRpcError):
    """There is no connection, or what the subclass says. `retry_after` if the server knows it."""


class AgentUnreachable(Unavailable):
    """The task is ACTIVE, but its agent did not connect in time."""


class TaskAppFailed(Unavailable):
    """The task is ACTIVE, but its task app failed or did not respond in time."""


class StoreUnavailable(Unavailable):
    """The server cannot reach its database."""


class ServerDraining(Unavailable):
    """The server is shutting down."""


class StreamInconsistent(TaskLogsRpcError):
    """A follow's stream contradicted itself and was closed. `code` is INTERNAL."""


class AnswerUnreadable(TaskLogsRpcError):
    """The response cannot be decoded, or has impossible values."""


class LogCorrupt(TaskLogsRpcError):
    """Stored entries cannot be decoded."""


@dataclass(eq=False, kw_only=True)
class UnsupportedByServer(TaskLogsRpcError):
    """The server is older than this client: it lacks the method, or what an argument needs."""

    feature: str | None = None
    """What the argument needs, by its name in tasklogs.features. None: the method is missing."""


_CODE = grpc.StatusCode
KINDS: Mapping[tuple[grpc.StatusCode, str | None], type[TaskLogsRpcError]] = {
    (_CODE.NOT_FOUND, "TASK_NOT_FOUND"): TaskNotFound,
    (_CODE.FAILED_PRECONDITION, None): FailedPrecondition,
    (_CODE.FAILED_PRECONDITION, "TASK_STATE_CONFLICT"): TaskStateConflict,
    (_CODE.FAILED_PRECONDITION, "STALE_REPORT"): StaleReport,
    (_CODE.FAILED_PRECONDITION, "BUILD_NOT_REPORTED"): BuildNotReported,
    (_CODE.FAILED_PRECONDITION, "TASK_STANDALONE"): TaskStandalone,
    (_CODE.INVALID_ARGUMENT, None): InvalidArgument,
    (_CODE.ALREADY_EXISTS, "TASK_NAME_TAKEN"): TaskNameTaken,
    (_CODE.ABORTED, "ETAG_MISMATCH"): EtagMismatch,
    (_CODE.OUT_OF_RANGE, "CURSOR_EXPIRED"): CursorExpired,
    (_CODE.UNAUTHENTICATED, None): Unauthenticated,
    (_CODE.PERMISSION_DENIED, None): PermissionDenied,
    (_CODE.RESOURCE_EXHAUSTED, None): LimitExceeded,
    (_CODE.DEADLINE_EXCEEDED, None): DeadlineExceeded,
    (_CODE.UNAVAILABLE, None): Unavailable,
    (_CODE.UNAVAILABLE, "AGENT_UNREACHABLE"): AgentUnreachable,
    (_CODE.UNAVAILABLE, "TASK_APP_ERROR"): TaskAppFailed,
    (_CODE.UNAVAILABLE, "STORE_UNAVAILABLE"): StoreUnavailable,
    (_CODE.UNAVAILABLE, "DRAINING"): ServerDraining,
    (_CODE.DATA_LOSS, "LOG_CORRUPT"): LogCorrupt,
    (_CODE.UNIMPLEMENTED, None): UnsupportedByServer,
}
"""The class of an error: by code and reason, else by the code alone."""


@contextmanager
def parsed_rpc_errors() -> Iterator[None]:
    """Raise TaskLogsRpcError in place of gRPC's error inside the `with`."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise TaskLogsRpcError.from_rpc_error(error) from error


T = TypeVar("T")


def readable(answer: T | None) -> T:
    """Return a stub's response. Raises AnswerUnreadable."""
    if answer is None:  # gRPC could not decode it
        raise AnswerUnreadable(code=_CODE.INTERNAL, message="the response cannot be decoded")
    return answer


@dataclass
class _Details:
    reason: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[FieldViolation, ...] = ()
    retry_after: timedelta | None = None
    quota_violations: tuple[QuotaViolation, ...] = ()
    request_id: str = ""

    def take(self, status: status_pb2.Status) -> None:
        info = error_details_pb2.ErrorInfo()
        bad_request = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        quota = error_details_pb2.QuotaFailure()
        request = error_details_pb2.RequestInfo()
        for detail in status.details:
            try:
                if detail.Unpack(info) and info.domain == DOMAIN:
                    self.reason, self.metadata = info.reason, dict(info.metadata)
                elif detail.Unpack(bad_request):
                    self.violations = tuple(
                        FieldViolation(field=violation.field, description=violation.description)
                        for violation in bad_request.field_violations
                    )
                elif detail.Unpack(retry):
                    self.retry_after = retry.retry_delay.ToTimedelta()
                elif detail.Unpack(quota):
                    self.quota_violations = tuple(
                        QuotaViolation(subject=violation.subject, description=violation.description)
                        for violation in quota.violations
                    )
                elif detail.Unpack(request):
                    self.request_id = request.request_id
            except (DecodeError, ValueError, OverflowError):
                # Malformed details must not hide the error itself.
                continue


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    try:
        # AioRpcError has the three methods of grpc.Call that from_call asks.
        return cast("status_pb2.Status | None", rpc_status.from_call(cast("grpc.Call", error)))
    except (DecodeError, ValueError):
        return None


def _request_id(error: grpc.aio.AioRpcError) -> str | None:
    # An error that a proxy made may have no details.
    for metadata in (error.trailing_metadata(), error.initial_metadata()):
        for key, value in metadata or ():
            if key == "x-request-id":
                return str(value)
    return None


def _status_named(name: str) -> TaskStatus:
    return TaskStatus.__members__.get(name.removeprefix("TASK_STATUS_"), TaskStatus.UNSPECIFIED)
