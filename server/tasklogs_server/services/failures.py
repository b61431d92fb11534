"""The one exit of all failed calls: domain errors become status and details, all else INTERNAL.

grpc.aio would send an unhandled exception's text to the caller.
"""

from __future__ import annotations

import asyncio

import grpc
import structlog
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from tasklogs_server.domain.errors import TaskLogsError
from tasklogs_server.services.departures import is_of_a_peer_that_left
from tasklogs_server.services.errors import INTERNAL, status_of
from tasklogs_server.services.handlers import Context
from tasklogs_server.services.tracebacks import traceback_of

_log = structlog.get_logger(__name__)


def status_of_failure(error: Exception, method: str) -> Status:
    """Return what the caller is told. Raises on a status that was chosen already.

    Raises CancelledError where nobody is there to be told.
    """
    if isinstance(error, grpc.aio.AbortError):  # an Exception: to be let through
        raise error
    if isinstance(error, TaskLogsError):
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
