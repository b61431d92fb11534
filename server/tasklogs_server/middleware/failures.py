"""What failed calls end with: domain errors become status and details, all others INTERNAL.

grpc.aio would send an unexpected exception's text to the caller.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, NoReturn

import grpc
import structlog
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from tasklogs.tracebacks import traceback_of
from tasklogs_server.domain import errors
from tasklogs_server.domain.errors import TaskLogsError
from tasklogs_server.domain.limits import Limit
from tasklogs_server.middleware.error_table import internal, status_of
from tasklogs_server.middleware.handlers import Call, Context, MethodHandler
from tasklogs_server.middleware.request_ids import current_request_id, metadata_of
from tasklogs_server.telemetry.calls import current
from tasklogs_server.telemetry.observer import Observer

_log = structlog.get_logger(__name__)


class Failures:
    """Turns errors into what callers are told, and logs and counts what operators should know."""

    def __init__(self, observer: Observer | None = None) -> None:
        self._observer = observer or Observer()

    def status_of(self, error: Exception, method: str) -> Status | None:
        """Return what the caller is told; None: a handler has sent a status already.

        Raises CancelledError if the caller has left.
        """
        if isinstance(error, grpc.aio.AbortError):
            return None
        if isinstance(error, TaskLogsError):
            limit = _limit_of(error)
            if limit is not None:
                self._observer.limited(limit)
            return status_of(error, current_request_id())
        if is_disconnect(error):
            release(error)
            raise asyncio.CancelledError from error
        _log.error("rpc.failed", method=method, exception=traceback_of(error))
        return internal(current_request_id())


async def refuse(context: Context, error: TaskLogsError) -> NoReturn:
    """Send the status of an error, for handlers that no middleware is around. Always raises."""
    await abort(context, status_of(error, current_request_id()))
    raise AssertionError("a call that was aborted goes on")


async def _unknown_method(_: Any, context: Context) -> None:
    await refuse(context, errors.MethodUnknown())


UNKNOWN_METHOD: MethodHandler = grpc.stream_unary_rpc_method_handler(_unknown_method)
"""The handler of each method that the server does not have. gRPC's own answer has no details."""


async def abort(context: Context, status: Status) -> None:
    """Send the status that ends a call, after the messages before it. Always raises."""
    try:
        told = rpc_status.to_status(status)
        trailers = (*told.trailing_metadata, *metadata_of(current()))
        await context.abort(told.code, told.details, trailers)
    except grpc.aio.AbortError as error:
        release_when_over(error)
        raise
    except Exception as error:
        if is_disconnect(error):
            raise asyncio.CancelledError from error
        raise


def release(error: BaseException) -> None:
    """Take the tracebacks from an error that is dealt with, and from those that led to it.

    The frames in a traceback hold what the handler had: the request, and all that was made of it.
    Where one of them refers to the error, perhaps through a future or a session that keeps it, they
    hold one another until the next full garbage collection, which may be minutes away. Frames are
    not cleared, only let go: another task may still run in one.
    """
    left: list[BaseException | None] = [error]
    seen: set[int] = set()
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.__traceback__ = None
        left += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions


def release_when_over(error: BaseException) -> None:
    """`release` an error when the task of the current call has ended.

    gRPC keeps the error of an abort with the call, to which the frames that it passes refer.
    """
    call = asyncio.current_task()
    assert call is not None
    call.add_done_callback(partial(_released, error))


def _released(error: BaseException, _: Call) -> None:
    release(error)


def is_disconnect(error: BaseException | None) -> bool:
    """Whether gRPC raised this because the peer has left in the middle of a call.

    It is raised before gRPC cancels the call. It must not be logged: any peer can cause it as often
    as it likes, and could fill the log with it.
    """
    return isinstance(error, grpc.aio.InternalError)


def _limit_of(error: TaskLogsError) -> Limit | None:
    """Return the limit that the call failed for, None for other errors."""
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
