"""What to do at the end of a stream: leave, or dial again, and after which wait."""

from __future__ import annotations

import random
from dataclasses import dataclass

import grpc

from tasklogs.connection import backoff
from tasklogs.connection.failure import ConnectionFailure
from tasklogs.errors import TaskLogsRpcError
from tasklogs.publish.settings import StreamSettings
from tasklogs.publish.source import one_line

_REFUSALS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.DATA_LOSS,
    }
)


class Fatal(Exception):
    """The agent cannot go on. `str()` is the line to print; `error` is what the server answered."""

    def __init__(self, message: str, error: TaskLogsRpcError | None = None) -> None:
        super().__init__(message)
        self.error = error


class StreamUsedUp(Exception):
    """The stream has carried all that it may carry. The next one continues at once."""


# Not frozen: Python itself sets attributes of an exception while it is raised.
@dataclass(eq=False)
class StreamEnded(Exception):
    """The stream ended. `reason` is for the log; `info` is `ErrorInfo.reason`, if there was one."""

    code: grpc.StatusCode
    reason: str
    info: str | None = None
    retry_after_seconds: float | None = None
    """The wait that the server asked for."""
    was_welcome: bool = False
    was_acknowledged: bool = False
    """Whether the server has stored anything that this stream sent."""
    was_idle: bool = False
    """Whether the stream broke without a word of the server, and with no append under way."""
    failure: ConnectionFailure | None = None
    """Why there was no connection, where `reason` has only gRPC's words."""
    error: TaskLogsRpcError | None = None
    """The status that the stream ended with."""

    @classmethod
    def of(
        cls,
        error: grpc.aio.AioRpcError,
        *,
        was_welcome: bool,
        was_acknowledged: bool = False,
        under_append: bool = True,
    ) -> StreamEnded:
        """Read the status and its details. `under_append`: an append was not acknowledged yet."""
        parsed = TaskLogsRpcError.from_rpc_error(error)
        retry_after = parsed.retry_after
        status = parsed.http_status
        return cls(
            error.code(),
            one_line(parsed.message)
            if status is None
            else f"a proxy answered with HTTP status {status}",
            parsed.reason,
            None if retry_after is None else max(0.0, retry_after.total_seconds()),
            was_welcome,
            was_acknowledged,
            not (under_append or parsed.is_from_the_server),
            _failure(parsed) if not was_welcome else None,
            parsed,
        )

    @property
    def is_from_the_server(self) -> bool:
        """Whether a TaskLogs server ended the stream, in its own words.

        Otherwise a proxy did, or the network, or gRPC itself.
        """
        return self.info is not None

    @property
    def is_refused_token(self) -> bool:
        """Whether the server itself refused the agent's token."""
        return self.is_from_the_server and self.code is grpc.StatusCode.UNAUTHENTICATED

    @property
    def is_refusal(self) -> bool:
        """Whether the server accepted nothing of what this stream sent.

        The next stream would send the same.
        """
        if self.was_acknowledged or self.was_idle:
            return False  # a proxy cuts idle streams, too, each time
        return self.info == "SESSION_LOST" or self.code in _REFUSALS


def _failure(error: TaskLogsRpcError) -> ConnectionFailure | None:
    if error.code is not grpc.StatusCode.UNAVAILABLE or error.reason is not None:
        return None
    return ConnectionFailure.of(error.message)


class Backoff:
    """Counts failures in a row and computes the wait before the next attempt."""

    def __init__(self, settings: StreamSettings, rng: random.Random) -> None:
        self._settings = settings
        self._rng = rng
        self._failures = 0

    def succeeded(self) -> None:
        """Record that a stream stored all that it sent."""
        self._failures = 0

    def wait_seconds(self, ended: StreamEnded) -> float:
        """Return how long to wait. Raises Fatal if no attempt can succeed."""
        _raise_if_fatal(ended)
        if ended.was_welcome and not ended.is_refusal:
            self._failures = 0
        if ended.info == "SESSION_SUPERSEDED":
            return self._rng.uniform(*self._settings.superseded_wait_seconds)
        self._failures += 1
        if ended.info == "SESSION_LOST" and ended.was_welcome and self._failures == 1:
            return 0.0
        if ended.retry_after_seconds is not None:
            return backoff.asked_seconds(
                ended.retry_after_seconds, cap=self._settings.retry_after_cap_seconds, rng=self._rng
            )
        # A lost session, or a refusal before Welcome, does not show that the content was refused.
        is_refused = ended.was_welcome and ended.is_refusal and ended.info != "SESSION_LOST"
        settings = self._settings
        return backoff.growing_seconds(
            self._failures,
            first=settings.backoff_first_seconds,
            cap=settings.refused_cap_seconds if is_refused else settings.backoff_cap_seconds,
            rng=self._rng,
        )


def _raise_if_fatal(ended: StreamEnded) -> None:
    if not ended.is_from_the_server:
        return  # a proxy knows neither the task nor its token, and may be changed at any time
    match ended.code:
        case grpc.StatusCode.NOT_FOUND:
            raise Fatal("the task was deleted", ended.error)
        case grpc.StatusCode.UNAUTHENTICATED:
            raise Fatal(
                "the server refused the agent token: it was rotated, or belongs to another server"
                " (`tasklogs task rotate-token TASK` gives a new one)",
                ended.error,
            )
        case grpc.StatusCode.PERMISSION_DENIED:
            raise Fatal(f"the server refused this agent: {ended.reason}", ended.error)
        case grpc.StatusCode.FAILED_PRECONDITION if ended.info == "STALE_REPORT":
            raise Fatal(
                "a newer build of the task has started: this agent belongs to an older one"
                " (without --build-number it would belong to the latest)",
                ended.error,
            )
        case _:
            return
