"""What a call of tasklogs.v1 failed with: code, reason, fields, and when to try again.

Each error that a program may want to tell apart is a class of its own under TaskLogsRpcError.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tasklogs.enums import TaskStatus

DOMAIN = "tasklogs.v1"
"""`ErrorInfo.domain` of this API's reasons; a proxy on the way may add details of its own."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of the request, and what is wrong with it."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class QuotaViolation:
    """A limit that was exceeded, and of what."""

    subject: str
    description: str


# Not frozen: Python itself sets attributes of an exception while it is raised.
@dataclass(eq=False)
class TaskLogsRpcError(Exception):
    """A call failed. What the server did not send is None or empty.

    A peer that cannot be reached, or is no TaskLogs server, gives a code and a message alone.
    """

    code: grpc.StatusCode
    message: str
    reason: str | None = None
    """`ErrorInfo.reason`, `TASK_NOT_FOUND` for instance: stable, for programs to act on."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """`ErrorInfo.metadata`; for `TASK_STATE_CONFLICT` what each layer of the status computed."""
    violations: tuple[FieldViolation, ...] = ()
    """`BadRequest`: the fields that were refused."""
    retry_after: timedelta | None = None
    """`RetryInfo`: trying again sooner is of no use."""
    quota_violations: tuple[QuotaViolation, ...] = ()
    """`QuotaFailure`: the limits that were exceeded."""

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.code.name}: {self.message}{reason}"

    @staticmethod
    def from_rpc_error(error: grpc.aio.AioRpcError) -> TaskLogsRpcError:
        """Parse what a stub's call raised. Details that cannot be decoded are left out."""
        details = _Details()
        status = _status(error)
        if status is not None:
            details.take(status)
        kind = _KINDS.get((error.code(), details.reason)) or _KINDS.get((error.code(), None))
        return (kind or TaskLogsRpcError)(
            error.code(),
            error.details() or "",
            details.reason,
            details.metadata,
            details.violations,
            details.retry_after,
            details.quota_violations,
        )


class TaskNotFound(TaskLogsRpcError):
    """No such task, deleted, or not the caller's to see: these three look alike."""


class FailedPrecondition(TaskLogsRpcError):
    """The state of the task refuses the call; `reason` says which rule."""


class TaskStateConflict(FailedPrecondition):
    """The task's status refuses the read; a read of the snapshot is possible."""

    @property
    def status(self) -> TaskStatus:
        """The status that refused."""
        return _status_named(self.metadata.get("status", ""))


class StaleReport(FailedPrecondition):
    """A report on an older build, or one that moves backwards; it changed nothing."""


class InvalidArgument(TaskLogsRpcError):
    """Fields of the request were refused: `violations` names each."""


class TaskNameTaken(TaskLogsRpcError):
    """The owner has a task of that name."""


class CursorExpired(TaskLogsRpcError):
    """The place that a cursor or a page token stands for is no longer held."""

    @property
    def oldest_cursor(self) -> str | None:
        """To go on from the oldest place that is held; what lay between is gone."""
        return self.metadata.get("oldest_cursor")


class Unauthenticated(TaskLogsRpcError):
    """No credentials, or bad or expired ones."""


class PermissionDenied(TaskLogsRpcError):
    """The caller may not do this."""


class LimitExceeded(TaskLogsRpcError):
    """Over a limit: `quota_violations` says which, or `retry_after` when there is room again."""


class DeadlineExceeded(TaskLogsRpcError):
    """No answer within the time that the caller gave."""


class Unavailable(TaskLogsRpcError):
    """Not now: no connection, or what the subclass says; `retry_after` where the server knows."""


class AgentUnreachable(Unavailable):
    """The task is ACTIVE, but no agent stream came in time."""


class TaskAppFailed(Unavailable):
    """The task is ACTIVE, but its task app failed or did not answer in time."""


class StoreUnavailable(Unavailable):
    """The server cannot reach its store."""


class ServerDraining(Unavailable):
    """The server is stopping."""


class StreamInconsistent(TaskLogsRpcError):
    """A follow's stream contradicted itself, and was dropped; `code` is INTERNAL."""


class AnswerUnreadable(TaskLogsRpcError):
    """What came back is no answer of this API: undecodable, or of impossible values."""


class LogCorrupt(TaskLogsRpcError):
    """Stored bytes cannot be decoded."""


_CODE = grpc.StatusCode
_KINDS: Mapping[tuple[grpc.StatusCode, str | None], type[TaskLogsRpcError]] = {
    (_CODE.NOT_FOUND, "TASK_NOT_FOUND"): TaskNotFound,
    (_CODE.FAILED_PRECONDITION, None): FailedPrecondition,
    (_CODE.FAILED_PRECONDITION, "TASK_STATE_CONFLICT"): TaskStateConflict,
    (_CODE.FAILED_PRECONDITION, "STALE_REPORT"): StaleReport,
    (_CODE.INVALID_ARGUMENT, None): InvalidArgument,
    (_CODE.ALREADY_EXISTS, "TASK_NAME_TAKEN"): TaskNameTaken,
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
}


@contextmanager
def parsed_rpc_errors() -> Iterator[None]:
    """Raise TaskLogsRpcError in place of what gRPC raises inside the `with`."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise TaskLogsRpcError.from_rpc_error(error) from error


T = TypeVar("T")


def readable(answer: T | None) -> T:
    """Return what a stub's call returned. Raises AnswerUnreadable."""
    if answer is None:  # gRPC's word for what cannot be decoded
        raise AnswerUnreadable(_CODE.INTERNAL, "the answer cannot be decoded")
    return answer


@dataclass
class _Details:
    reason: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[FieldViolation, ...] = ()
    retry_after: timedelta | None = None
    quota_violations: tuple[QuotaViolation, ...] = ()

    def take(self, status: status_pb2.Status) -> None:
        info = error_details_pb2.ErrorInfo()
        bad_request = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        quota = error_details_pb2.QuotaFailure()
        for detail in status.details:
            try:
                if detail.Unpack(info) and info.domain == DOMAIN:
                    self.reason, self.metadata = info.reason, dict(info.metadata)
                elif detail.Unpack(bad_request):
                    self.violations = tuple(
                        FieldViolation(violation.field, violation.description)
                        for violation in bad_request.field_violations
                    )
                elif detail.Unpack(retry):
                    self.retry_after = retry.retry_delay.ToTimedelta()
                elif detail.Unpack(quota):
                    self.quota_violations = tuple(
                        QuotaViolation(violation.subject, violation.description)
                        for violation in quota.violations
                    )
            except (DecodeError, ValueError, OverflowError):
                # Whatever a stranger puts there must not hide the error itself.
                continue


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    try:
        # AioRpcError has the three methods of grpc.Call that from_call asks.
        return cast("status_pb2.Status | None", rpc_status.from_call(cast("grpc.Call", error)))
    except (DecodeError, ValueError):
        return None


def _status_named(name: str) -> TaskStatus:
    return TaskStatus.__members__.get(name.removeprefix("TASK_STATUS_"), TaskStatus.UNSPECIFIED)
