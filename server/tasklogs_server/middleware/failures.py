"""The one exit of all failed calls: domain errors become status and details, all else INTERNAL.

grpc.aio would send an unhandled exception's text to the caller.
"""

from __future__ import annotations

import asyncio

import grpc
import structlog
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from tasklogs_server.domain import errors
from tasklogs_server.domain.errors import TaskLogsError
from tasklogs_server.domain.limits import Limit
from tasklogs_server.middleware.departures import is_of_a_peer_that_left
from tasklogs_server.middleware.error_table import INTERNAL, status_of
from tasklogs_server.middleware.handlers import Context
from tasklogs_server.process.log_output import traceback_of
from tasklogs_server.telemetry.observer import Observer

_log = structlog.get_logger(__name__)


class Failures:
    """Says what callers are told, and tells operators what they should know."""

    def __init__(self, observer: Observer | None = None) -> None:
        self._observer = observer or Observer()

    def status_of(self, error: Exception, method: str) -> Status:
        """Return what the caller is told. Raises on a status that was chosen already.

        Raises CancelledError where nobody is there to be told.
        """
        if isinstance(error, grpc.aio.AbortError):  # an Exception: to be let through
            raise error
        if isinstance(error, TaskLogsError):
            limit = _limit_of(error)
            if limit is not None:
                self._observer.limited(limit)
            return status_of(error)
        if is_of_a_peer_that_left(error):
            raise asyncio.CancelledError from error
        _log.error("rpc.failed", method=method, exception=traceback_of(error))
        return INTERNAL


async def abort(context: Context, status: Status) -> None:
    """Send how the call ended, behind the messages that are on their way. Always raises."""
    try:
        await context.abort_with_status(rpc_status.to_status(status))
    except grpc.aio.AbortError:
        raise
    except Exception as error:
        if is_of_a_peer_that_left(error):
            raise asyncio.CancelledError from error
        raise


def _limit_of(error: TaskLogsError) -> Limit | None:
    """Return which limit it was that the call failed for, if it was one."""
    match error:
        case errors.LimitExceeded():
            return error.limit
        case errors.LogFull():
            return Limit.LOG
        case errors.StoreBusy():
            return Limit.STORE_WAIT
        case errors.RequestTooSlow():
            return Limit.REQUEST_TIMEOUT
        case errors.TookTooLong():
            return Limit.DEFAULT_DEADLINE
        case _:
            return None
