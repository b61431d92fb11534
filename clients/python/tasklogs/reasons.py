"""The reasons of errors: `ErrorInfo.reason`, the status code, and whether to repeat the call.

The server sends no other reasons with the domain `tasklogs.v1`. docs/api.md and
protos/tasklogs/v1/reasons.json are made from this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import grpc

from tasklogs.status_code import StatusCode

__all__ = ["DOMAIN", "REASONS", "Reason", "Retry"]

DOMAIN = "tasklogs.v1"
"""`ErrorInfo.domain` of these reasons. A proxy may add details of another domain."""


class Retry(StrEnum):
    """Whether the same call may succeed if it is made again."""

    NO = "no"
    """Only after something else has changed: the request, the credentials, or the task."""
    NOW = "now"
    """At once. It has changed nothing yet. Wait longer each time it fails again."""
    AFTER = "after"
    """After the time in RetryInfo, which the error always has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One reason. Its name and its code never change."""

    name: str
    code: StatusCode | Any
    retry: Retry
    meaning: str
    """What happened, in one or two sentences."""


def _reason(name: str, code: grpc.StatusCode, retry: Retry, meaning: str) -> Reason:
    return Reason(name=name, code=code, retry=retry, meaning=meaning)


_CODE = grpc.StatusCode
_REASONS = (
    _reason(
        "INVALID_FIELDS",
        _CODE.INVALID_ARGUMENT,
        Retry.NO,
        "A field of the request is not valid. BadRequest names each such field.",
    ),
    _reason(
        "UNSUPPORTED",
        _CODE.INVALID_ARGUMENT,
        Retry.NO,
        "The message has a part that this server does not know. Nothing of it was used.",
    ),
    _reason(
        "PROTOCOL_VIOLATION",
        _CODE.INVALID_ARGUMENT,
        Retry.NO,
        "An agent broke a rule of the agent stream.",
    ),
    _reason(
        "TASK_NOT_FOUND",
        _CODE.NOT_FOUND,
        Retry.NO,
        "The task does not exist, was deleted, or the caller may not see it. For a cursor or a page"
        " token: its task does not exist any more.",
    ),
    _reason(
        "SERVICE_UNKNOWN",
        _CODE.NOT_FOUND,
        Retry.NO,
        "A health check names a service that this server does not have.",
    ),
    _reason(
        "TASK_NAME_TAKEN",
        _CODE.ALREADY_EXISTS,
        Retry.NO,
        "The owner has a task of this name.",
    ),
    _reason(
        "ETAG_MISMATCH",
        _CODE.ABORTED,
        Retry.NO,
        "The display name or the labels differ from those that you read. Read the task again, and"
        " decide again.",
    ),
    _reason(
        "TASK_STATE_CONFLICT",
        _CODE.FAILED_PRECONDITION,
        Retry.NO,
        "The task's status does not allow the read. A snapshot read is possible. The metadata has"
        " `status`, `build`, `agent` and `app`.",
    ),
    _reason(
        "STALE_REPORT",
        _CODE.FAILED_PRECONDITION,
        Retry.NO,
        "The report is for an older build, or goes back to an earlier state. For an agent stream: a"
        " newer build has started.",
    ),
    _reason(
        "BUILD_NOT_REPORTED",
        _CODE.FAILED_PRECONDITION,
        Retry.NO,
        "The report is for a build that ReportBuild has not named yet. Report the build first.",
    ),
    _reason(
        "TASK_STANDALONE",
        _CODE.FAILED_PRECONDITION,
        Retry.NO,
        "The task is standalone: only its agent stream sets its status.",
    ),
    _reason(
        "SESSION_OPEN",
        _CODE.FAILED_PRECONDITION,
        Retry.NO,
        "A snapshot cannot be uploaded while an agent stream of the task is open.",
    ),
    _reason(
        "SESSION_SUPERSEDED",
        _CODE.ABORTED,
        Retry.NO,
        "Another agent stream of the task took over.",
    ),
    _reason(
        "SESSION_LOST",
        _CODE.ABORTED,
        Retry.NOW,
        "The store changed under this agent stream, or the result of a commit is unknown. Open a"
        " new stream and start again from its Welcome.",
    ),
    _reason(
        "CURSOR_EXPIRED",
        _CODE.OUT_OF_RANGE,
        Retry.NO,
        "The server does not have this position any more. The metadata has `oldest_cursor`.",
    ),
    _reason(
        "TOKEN_MISSING",
        _CODE.UNAUTHENTICATED,
        Retry.NO,
        "The call has no token. Send `authorization: Bearer ...`.",
    ),
    _reason(
        "TOKEN_INVALID",
        _CODE.UNAUTHENTICATED,
        Retry.NO,
        "The token is not valid, or the agent token was rotated.",
    ),
    _reason(
        "TOKEN_EXPIRED",
        _CODE.UNAUTHENTICATED,
        Retry.NO,
        "The token expired. Get a new one, and call again.",
    ),
    _reason(
        "CERTIFICATE_INVALID",
        _CODE.UNAUTHENTICATED,
        Retry.NO,
        "The client certificate does not name one caller.",
    ),
    _reason(
        "KEYS_UNAVAILABLE",
        _CODE.UNAVAILABLE,
        Retry.AFTER,
        "The server has not read the keys yet that it checks tokens with.",
    ),
    _reason(
        "PERMISSION_DENIED",
        _CODE.PERMISSION_DENIED,
        Retry.NO,
        "The caller may not do this.",
    ),
    _reason(
        "LIMIT_EXCEEDED",
        _CODE.RESOURCE_EXHAUSTED,
        Retry.NO,
        "The request is larger than a limit. QuotaFailure says which.",
    ),
    _reason(
        "TOO_MANY_REQUESTS",
        _CODE.RESOURCE_EXHAUSTED,
        Retry.AFTER,
        "There were too many calls in a short time, or there are too many at once: of this caller,"
        " for this task, or of all callers. A running follow also ends with it if its caller does"
        " not read.",
    ),
    _reason(
        "LOG_FULL",
        _CODE.RESOURCE_EXHAUSTED,
        Retry.AFTER,
        "The log is at its limits, and no entry is old enough to be evicted. QuotaFailure has the"
        " limits.",
    ),
    _reason(
        "STORE_BUSY",
        _CODE.RESOURCE_EXHAUSTED,
        Retry.AFTER,
        "All connections to the database were in use for too long.",
    ),
    _reason(
        "REQUEST_TOO_SLOW",
        _CODE.DEADLINE_EXCEEDED,
        Retry.NOW,
        "The request did not arrive in time.",
    ),
    _reason(
        "DEFAULT_DEADLINE_EXCEEDED",
        _CODE.DEADLINE_EXCEEDED,
        Retry.NO,
        "The call had no deadline, and took longer than the server's default. Set a deadline.",
    ),
    _reason(
        "METHOD_UNKNOWN",
        _CODE.UNIMPLEMENTED,
        Retry.NO,
        "This server does not have the method. A newer server may.",
    ),
    _reason(
        "AGENT_UNREACHABLE",
        _CODE.UNAVAILABLE,
        Retry.AFTER,
        "The task is ACTIVE, but no agent connected in time.",
    ),
    _reason(
        "TASK_APP_ERROR",
        _CODE.UNAVAILABLE,
        Retry.NOW,
        "The task is ACTIVE, but the task app failed or did not answer in time. The metadata has"
        " `reason`, in the task app's words.",
    ),
    _reason(
        "STORE_UNAVAILABLE",
        _CODE.UNAVAILABLE,
        Retry.AFTER,
        "The server cannot use its database now, or another transaction has held the task's rows"
        " for too long.",
    ),
    _reason(
        "DRAINING",
        _CODE.UNAVAILABLE,
        Retry.AFTER,
        "The server shuts down. Another server, or the next one, will accept the call.",
    ),
    _reason(
        "COMMIT_REFUSED",
        _CODE.INTERNAL,
        Retry.AFTER,
        "The store refuses this task's rows and accepts those of others.",
    ),
    _reason(
        "LOG_CORRUPT",
        _CODE.DATA_LOSS,
        Retry.NO,
        "Stored bytes of the log cannot be decoded.",
    ),
    _reason(
        "INTERNAL",
        _CODE.INTERNAL,
        Retry.NO,
        "The server failed unexpectedly. Its log has the cause, under the request id.",
    ),
)

REASONS: Mapping[str, Reason] = MappingProxyType({one.name: one for one in _REASONS})
"""Every reason, by its name."""
