"""TaskLogs: for readers."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache, partial
from typing import Any, cast

import grpc

from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs_server.domain.errors import FieldViolation, InvalidFields
from tasklogs_server.domain.names import parse_task_ref
from tasklogs_server.domain.read_plan import Source
from tasklogs_server.logs.places import fingerprint
from tasklogs_server.logs.reader import MAX_PAGE_ROWS, LogAnswer, LogQuery, LogReader
from tasklogs_server.services.enums import TASK_STATUS
from tasklogs_server.services.moments import length_of, timestamp

_SOURCES = {
    pb.LOG_SOURCE_UNSPECIFIED: Source.DEFAULT,
    pb.LOG_SOURCE_LIVE: Source.LIVE,
    pb.LOG_SOURCE_SNAPSHOT: Source.SNAPSHOT,
}
# The caller's own deadline is answered a little before it, while someone still listens.
_ANSWER_AHEAD_SECONDS = 0.1
# Who polls a log asks the same again and again: what is decoded and checked then is remembered, for
# so many requests of at most so many bytes.
_KNOWN_REQUESTS = 1024
_KNOWN_REQUEST_BYTES = 512


class TaskLogsService:
    """The handlers of `tasklogs.v1.TaskLogs`."""

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader
        self._known_query = lru_cache(maxsize=_KNOWN_REQUESTS)(_decoded_query)

    async def get_task_logs(
        self, request: pb.GetTaskLogsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> bytes:
        """Read one page; the answer is encoded already, its entries as they are stored."""
        answer = await self._reader.read(self._query(request), time_left=_time_left(context))
        return answer.encoded + _response_of(answer).SerializeToString()

    def _query(self, request: pb.GetTaskLogsRequest) -> LogQuery:
        if request.page_token or request.ByteSize() > _KNOWN_REQUEST_BYTES:
            return _query_of(request)  # asked once, or too long to be kept
        return self._known_query(request.SerializeToString())


def _decoded_query(request: bytes) -> LogQuery:
    return _query_of(pb.GetTaskLogsRequest.FromString(request))


def _query_of(request: pb.GetTaskLogsRequest) -> LogQuery:
    violations: list[FieldViolation] = []
    try:
        ref = parse_task_ref(request.task)
    except InvalidFields as error:
        violations += error.violations
    source = _SOURCES.get(request.source)
    if source is None:
        violations.append(FieldViolation("source", f"{request.source} is not a LOG_SOURCE value"))
    if request.HasField("tail") and request.tail < 0:
        violations.append(FieldViolation("tail", "must not be negative"))
    if request.page_size < 0:
        violations.append(FieldViolation("page_size", "must not be negative"))
    if request.HasField("epoch") and request.epoch < 1:
        violations.append(FieldViolation("epoch", "epochs are numbered from 1"))
    max_staleness = None
    if request.HasField("max_staleness"):
        max_staleness = length_of(request.max_staleness, "max_staleness", violations)
    if violations or source is None:
        raise InvalidFields(violations)
    return LogQuery(
        ref=ref,
        source=source,
        tail=request.tail if request.HasField("tail") else None,
        page_rows=min(request.page_size, MAX_PAGE_ROWS) or MAX_PAGE_ROWS,
        page_token=request.page_token,
        epoch=request.epoch if request.HasField("epoch") else None,
        max_staleness=max_staleness,
        fingerprint=partial(_fingerprint, request),
    )


def _fingerprint(request: pb.GetTaskLogsRequest) -> bytes:
    # Unknown fields of a newer client count too: they might mean another range.
    arguments = pb.GetTaskLogsRequest()
    arguments.CopyFrom(request)
    arguments.ClearField("page_token")
    arguments.ClearField("page_size")
    return fingerprint(arguments.SerializeToString(deterministic=True))


def _time_left(context: grpc.aio.ServicerContext[Any, Any]) -> timedelta | None:
    # The stubs leave out that a caller may have no deadline.
    seconds = cast("float | None", context.time_remaining())
    if seconds is None:
        return None
    seconds = min(seconds, 86_400.0)
    ahead = min(1.0, max(_ANSWER_AHEAD_SECONDS, 0.1 * seconds))
    return timedelta(seconds=max(0.0, seconds - ahead))


def _response_of(answer: LogAnswer) -> pb.GetTaskLogsResponse:
    return pb.GetTaskLogsResponse(
        snapshot=answer.snapshot,
        snapshot_at=None if answer.snapshot_at is None else timestamp(answer.snapshot_at),
        status=TASK_STATUS.encode(answer.status),
        epoch=answer.epoch,
        revision=answer.revision,
        first_id=answer.first_id,
        cursor=answer.cursor,
        next_page_token=answer.next_page_token,
    )
