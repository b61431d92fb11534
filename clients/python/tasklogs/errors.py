"""What a call of tasklogs.v1 failed with: code, reason, fields, and when to try again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Self, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

DOMAIN = "tasklogs.v1"
"""`ErrorInfo.domain` of this API's reasons; a proxy on the way may add details of its own."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of the request, and what is wrong with it."""

    field: str
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

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.code.name}: {self.message}{reason}"

    @classmethod
    def from_rpc_error(cls, error: grpc.aio.AioRpcError) -> Self:
        """Parse what a stub's call raised. Details that cannot be decoded are left out."""
        parsed = cls(error.code(), error.details() or "")
        status = _status(error)
        if status is not None:
            parsed._take_details(status)
        return parsed

    def _take_details(self, status: status_pb2.Status) -> None:
        info = error_details_pb2.ErrorInfo()
        bad_request = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
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
            except (DecodeError, ValueError, OverflowError):
                # Whatever a stranger puts there must not hide the error itself.
                continue


@contextmanager
def parsed_rpc_errors() -> Iterator[None]:
    """Raise TaskLogsRpcError in place of what gRPC raises inside the `with`."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise TaskLogsRpcError.from_rpc_error(error) from error


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    try:
        # AioRpcError has the three methods of grpc.Call that from_call asks.
        return cast("status_pb2.Status | None", rpc_status.from_call(cast("grpc.Call", error)))
    except (DecodeError, ValueError):
        return None
