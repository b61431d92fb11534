"""Describes a failed call in one line: what went wrong, and what to do about it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import grpc

from tasklogs.connection.failure import ConnectionFailure
from tasklogs.errors import TaskLogsRpcError, UnsupportedByServer

if TYPE_CHECKING:
    from tasklogs.connection.tls import Tls
    from tasklogs.status_code import StatusCode

_NEW_TOKEN = "get a new one from the issuer (--auth-token-file FILE, or TASKLOGS_TOKEN)"
_HINTS = {
    "TASK_STATE_CONFLICT": "use --source snapshot",
    "AGENT_UNREACHABLE": (
        "is the task's `tasklogs agent` running? --source snapshot reads the stored log"
    ),
    "TASK_APP_ERROR": "--source snapshot reads the stored log",
    "ETAG_MISMATCH": "another update came in between: run the command again",
    "BUILD_NOT_REPORTED": "report the build first: `tasklogs task report-build`",
    "METHOD_UNKNOWN": "it is older than this command",
    "TOKEN_MISSING": "give a token: --auth-token-file FILE, or TASKLOGS_TOKEN",
    "TOKEN_EXPIRED": _NEW_TOKEN,
    "TOKEN_INVALID": f"{_NEW_TOKEN}; the server's log has the cause at level debug",
    "CERTIFICATE_INVALID": (
        "--tls-client-cert FILE must have one URI as subject alternative name or, without a URI,"
        " one DNS name"
    ),
}
"""What to do about an `ErrorInfo.reason`. The server does not know the flags of this command."""

_UNEXPECTED = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS)
"""Codes of errors whose cause only the server's log has."""

_PROXY_HINTS = {
    401: "it wants credentials of its own",
    403: "it does not allow the call",
    404: "it does not forward the call",
    413: "the request is larger than it allows",
    429: "it limits the rate of calls",
    502: "it cannot reach the server",
    503: "it cannot reach the server",
    504: "the server does not answer it in time",
}
"""What a proxy most likely means by an HTTP status."""

_SAID_BY_A_SERVER = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND,
)
"""Codes that a TaskLogs server sends only with a reason, and gRPC itself never."""

_SAID_BY_THE_CODE = ("not authenticated: ", "permission denied: ")


def describe(
    error: TaskLogsRpcError, server: str, timeout_seconds: float, tls: Tls | None = None
) -> str:
    """Return one line; `server`, `timeout_seconds` and `tls` are those of the call."""
    if error.http_status is not None:
        return f"no TaskLogs server answers at {server}: {proxy_answer(error.http_status)}"
    if error.reason is None and error.code is grpc.StatusCode.UNAVAILABLE:
        failure = ConnectionFailure.of(error.message)
        if failure is not None:
            return f"no connection to {server}: {failure.in_words(tls)}"
        return (
            f"no server answers at {server} ({_cause(error.message)});"
            " start one with `tasklogs serve`, or name another with --server"
        )
    if error.reason is None and error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"no answer from {server} within {timeout_seconds:g} s (--timeout)"
    if isinstance(error, UnsupportedByServer) and error.feature is not None:
        return error.message
    if error.reason is None and error.code is grpc.StatusCode.UNIMPLEMENTED:
        return (
            f"the server at {server} does not have this method: it is an older TaskLogs server"
            " (compare `tasklogs server-info`), or another server"
        )
    return "; ".join(_sentence(error))


def proxy_answer(http_status: int) -> str:
    """Say what answered, and what the status means."""
    hint = _PROXY_HINTS.get(http_status, "its log may have the cause")
    return f"a proxy answered with HTTP status {http_status} ({hint})"


def _cause(message: str) -> str:
    # gRPC puts the words of each layer in front of the kernel's.
    return message.rpartition(": ")[2] or "no reason given"


def _sentence(error: TaskLogsRpcError) -> list[str]:
    parts = [f"{in_words(error.code)}: {_what(error)}"]
    if error.reason and error.reason != error.code.name:
        parts[0] += f" ({error.reason})"
    if error.retry_after is not None:
        parts.append(f"try again in {_seconds(error.retry_after)}")
    if error.reason is None and error.code in _SAID_BY_A_SERVER:
        parts.append("a proxy or another server said this")
    if error.reason in _HINTS:
        parts.append(_HINTS[error.reason])
    if error.code in _UNEXPECTED and error.request_id:
        parts.append(f"the server's log has the cause under request id {error.request_id}")
    return parts


def in_words(code: StatusCode) -> str:
    """Return NOT_FOUND as `not found`."""
    return code.name.lower().replace("_", " ")


def _what(error: TaskLogsRpcError) -> str:
    # The message only summarizes the violations.
    return "; ".join(
        f"{violation.field}: {violation.description}" for violation in error.violations
    ) or (without_code(error.message) or "no reason was given")


def without_code(message: str) -> str:
    """Return `message` without the words that repeat its code."""
    for said in _SAID_BY_THE_CODE:
        message = message.removeprefix(said)
    return message


def _seconds(delay: timedelta) -> str:
    return f"{max(delay.total_seconds(), 0.1):.1f} s".replace(".0 s", " s")
