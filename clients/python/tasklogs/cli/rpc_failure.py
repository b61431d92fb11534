"""A failed call as one line: what went wrong, and what to do about it."""

from __future__ import annotations

from datetime import timedelta

import grpc

from tasklogs.errors import TaskLogsRpcError

_HINTS = {
    "TASK_STATE_CONFLICT": "use --source snapshot",
    "AGENT_UNREACHABLE": (
        "is the task's `tasklogs agent` running? What is stored can be read with --source snapshot"
    ),
    "TASK_APP_ERROR": "what is stored can be read with --source snapshot",
}
"""What to do about an `ErrorInfo.reason`, where the server, which knows no flags, cannot say it."""


def describe(error: TaskLogsRpcError, server: str, timeout_seconds: float) -> str:
    """`error` in words; `server` and `timeout_seconds` are those of the call."""
    if error.reason is None and error.code is grpc.StatusCode.UNAVAILABLE:
        tls = _tls_failure(error.message)
        if tls is not None:
            return f"no connection to {server}: {tls}"
        return (
            f"no server answers at {server} ({_cause(error.message)});"
            " start one with `tasklogs serve`, or name another with --server"
        )
    if error.reason is None and error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"no answer from {server} within {timeout_seconds:g} s (--timeout)"
    if error.reason is None and error.code is grpc.StatusCode.UNIMPLEMENTED:
        return f"what answers at {server} does not serve this call: is it a TaskLogs server?"
    return "; ".join(_sentence(error))


def _tls_failure(message: str) -> str | None:
    # A server that hangs up is all a client sees of plain text on a TLS port, and of its own
    # certificate missing.
    if "CERTIFICATE_VERIFY_FAILED" in message or "Hostname Verification" in message:
        return "its certificate is not trusted (--tls-ca FILE), or is that of another host"
    if "WRONG_VERSION_NUMBER" in message:
        return "it speaks plain text: leave out --tls and --tls-ca"
    if message.endswith("Socket closed"):
        return "it hung up; if it wants TLS, use --tls-ca FILE, and --tls-client-cert if it asks"
    return None


def _cause(message: str) -> str:
    # gRPC puts every layer's words in front of what the kernel said.
    return message.rpartition(": ")[2] or "no reason given"


def _sentence(error: TaskLogsRpcError) -> list[str]:
    parts = [f"{in_words(error.code)}: {_what(error)}"]
    if error.reason:
        parts[0] += f" ({error.reason})"
    if error.retry_after is not None:
        parts.append(f"try again in {_seconds(error.retry_after)}")
    if error.code is grpc.StatusCode.UNAUTHENTICATED:
        parts.append("give a token: --auth-token-file FILE, or TASKLOGS_TOKEN")
    if error.reason in _HINTS:
        parts.append(_HINTS[error.reason])
    return parts


def in_words(code: grpc.StatusCode) -> str:
    """NOT_FOUND as `not found`."""
    return code.name.lower().replace("_", " ")


def _what(error: TaskLogsRpcError) -> str:
    # The violations say field by field what the message can only sum up.
    return "; ".join(
        f"{violation.field}: {violation.description}" for violation in error.violations
    ) or (error.message or "no reason was given")


def _seconds(delay: timedelta) -> str:
    return f"{max(delay.total_seconds(), 0.1):.1f} s".replace(".0 s", " s")
