"""Which failed calls are made again, and after which wait. Calls and follows use the same rule."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

import grpc

from tasklogs.connection import backoff
from tasklogs.connection.failure import ConnectionFailure
from tasklogs.errors import TaskLogsRpcError
from tasklogs.reasons import Retry

_MISCONFIGURED = (ConnectionFailure.NOT_TRUSTED, ConnectionFailure.PLAIN_TEXT)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a call that may be repeated is made, and how long it waits between two attempts.

    `attempts` counts the first one. The n-th wait is `first` x 2^(n-1), at most `cap`, less a
    random part up to half. If the server says how long to wait, that is used instead, plus a random
    part up to half; if it asks for more than `longest`, the error is raised at once.
    """

    attempts: int = 5
    first: timedelta = timedelta(milliseconds=200)
    cap: timedelta = timedelta(seconds=5)
    longest: timedelta = timedelta(seconds=30)

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError("`attempts` counts the first one: it is at least 1")

    def wait_seconds(
        self, error: TaskLogsRpcError, attempts: int, rng: random.Random
    ) -> float | None:
        """Return the wait after so many attempts, the last of which failed. None: give up."""
        if attempts >= self.attempts or not may_pass(error):
            return None
        if error.retry_after is None:
            return backoff.growing_seconds(
                attempts,
                first=self.first.total_seconds(),
                cap=self.cap.total_seconds(),
                rng=rng,
            )
        if error.retry_after > self.longest:
            return None
        longest = self.longest.total_seconds()
        return backoff.asked_seconds(error.retry_after.total_seconds(), cap=longest, rng=rng)


def may_pass(error: TaskLogsRpcError) -> bool:
    """Whether the same call may succeed later: tasklogs.reasons, and docs/api.md for other errors.

    Whether a repeat can do harm is for the caller to know. If the error has `retry_after`, an
    earlier repeat fails too.
    """
    if error.retry is not None:
        return error.retry is not Retry.NO
    if error.code is not grpc.StatusCode.UNAVAILABLE:
        return False
    # A lost connection, a proxy without a server, or a reason of a newer server.
    return ConnectionFailure.of(error.message) not in _MISCONFIGURED
