"""`tasklogs.v1.TaskLogs`: clients read and follow logs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from tasklogs.log.entry import EntryType
from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import types_pb2
from tasklogs_server.domain.caller import Caller, User, visible
from tasklogs_server.domain.errors import FieldViolation, InvalidFields
from tasklogs_server.domain.names import TaskRef, parse_task_ref
from tasklogs_server.domain.read_plan import Source
from tasklogs_server.middleware.unsent_messages import UnsentMessages
from tasklogs_server.reads.follow_query import FollowQuery
from tasklogs_server.reads.follower import Follows
from tasklogs_server.reads.reader import MAX_PAGE_ROWS, LogAnswer, LogQuery, LogReader
from tasklogs_server.reads.tokens import Cursor, fingerprint
from tasklogs_server.services.known_queries import KnownQueries
from tasklogs_server.wire.enums import TASK_STATUS
from tasklogs_server.wire.fields import undecodable
from tasklogs_server.wire.times import length_of, timestamp

_SOURCES: dict[int, Source] = {
    pb.LOG_SOURCE_UNSPECIFIED: Source.DEFAULT,
    pb.LOG_SOURCE_LIVE: Source.LIVE,
    pb.LOG_SOURCE_SNAPSHOT: Source.SNAPSHOT,
}
_ENTRY_TYPES = frozenset(map(int, EntryType))
_MAX_TYPES = 16
# A response is sent this long before the caller's deadline, while they still wait for it: a tenth
# of the time, within these bounds. A caller in a hurry keeps most of its time for the sync.
_ANSWER_AHEAD_SECONDS = 0.1
_MOST_AHEAD_SECONDS = 1.0
_MOST_AHEAD = 1 / 3
_SHORTEST_PROGRESS_SECONDS = 1
_LONGEST_PROGRESS_SECONDS = 3600


class TaskLogsService:
    """The handlers of `tasklogs.v1.TaskLogs`."""

    def __init__(
        self,
        reader: LogReader,
        follows: Follows,
        unsent: UnsentMessages,
        server_info: pb.GetServerInfoResponse,
        *,
        page_bytes: int,
    ) -> None:
        self._reader = reader
        self._page_bytes = page_bytes
        self._follows = follows
        self._unsent = unsent
        self._server_info = server_info
        self._known = KnownQueries()

    async def get_task_logs(
        self,
        request: bytes,
        context: grpc.aio.ServicerContext[Any, Any],
        caller: User,
    ) -> bytes:
        """Read one page. The response is encoded already: entries are sent as they are stored.

        The request is encoded still: most are known.
        """
        query = self._query(request, caller.sees_only)
        return await self._reader.read(query, time_left=_time_left(context))

    async def follow_task_logs(
        self,
        request: pb.FollowTaskLogsRequest,
        context: grpc.aio.ServicerContext[Any, Any],
        caller: User,
    ) -> None:
        """Write what happens to the log until it ends, or the caller leaves.

        A write waits while the caller does not read. Nothing else is held meanwhile.
        """
        query = _follow_query_of(request, caller.sees_only)
        with self._unsent.stream(caller, context) as stream:
            async with self._follows.following(query, stream) as messages:
                async for message in messages:
                    await stream.write(context, message)

    async def get_server_info(
        self, _: pb.GetServerInfoRequest, __: grpc.aio.ServicerContext[Any, Any], ___: Caller
    ) -> pb.GetServerInfoResponse:
        """Say what this server is."""
        return self._server_info

    def _query(self, encoded: bytes, sees_only: str | None) -> LogQuery:
        known = self._known.find(encoded, sees_only)
        if known is not None:
            return known
        try:
            request = pb.GetTaskLogsRequest.FromString(encoded)
        except DecodeError:
            raise undecodable() from None
        query = _query_of(request, sees_only, self._page_bytes)
        self._known.keep(encoded, query)
        return query


def _follow_query_of(request: pb.FollowTaskLogsRequest, sees_only: str | None) -> FollowQuery:
    violations: list[FieldViolation] = []
    ref, source, tail = _task_source_and_tail(request, violations)
    progress_interval = _progress_interval_of(request, violations)
    if tail is not None and request.cursor:
        violations.append(FieldViolation("tail", "cannot be combined with cursor"))
    types = _types_of(request.types, violations)
    cursor = None
    if request.cursor:
        try:
            cursor = Cursor.decode(request.cursor)
        except InvalidFields as error:
            violations += error.violations
    if ref is None or violations:
        raise InvalidFields(violations)
    return FollowQuery(
        ref=visible(ref, sees_only),
        sees_only=sees_only,
        source=source,
        tail=tail,
        cursor=cursor,
        deltas=request.deltas,
        compressed=request.compressed,
        types=types,
        progress_interval=progress_interval,
    )


def _progress_interval_of(
    request: pb.FollowTaskLogsRequest, violations: list[FieldViolation]
) -> timedelta | None:
    if not request.HasField("progress_interval"):
        return None
    asked = request.progress_interval
    # A timedelta has no nanoseconds.
    is_valid = 0 <= asked.nanos < 10**9 and (
        _SHORTEST_PROGRESS_SECONDS <= asked.seconds < _LONGEST_PROGRESS_SECONDS
        or (asked.seconds, asked.nanos) == (_LONGEST_PROGRESS_SECONDS, 0)
    )
    if not is_valid:
        violations.append(FieldViolation("progress_interval", "must be from 1 s to 1 h"))
        return None
    return asked.ToTimedelta()


def _task_source_and_tail(
    request: pb.GetTaskLogsRequest | pb.FollowTaskLogsRequest, violations: list[FieldViolation]
) -> tuple[TaskRef | None, Source, int | None]:
    """Decode task, source and tail, which both requests have. Bad values add violations."""
    ref: TaskRef | None = None
    try:
        ref = parse_task_ref(request.task)
    except InvalidFields as error:
        violations += error.violations
    source = _source_of(request.source, violations)
    tail = request.tail if request.HasField("tail") else None
    if tail is not None and tail < 0:
        violations.append(FieldViolation("tail", "must not be negative"))
    return ref, source, tail


def _source_of(source: int, violations: list[FieldViolation]) -> Source:
    known = _SOURCES.get(source)
    if known is None:
        violations.append(FieldViolation("source", f"{source} is not a LOG_SOURCE value"))
    return known or Source.DEFAULT


def _types_of(wanted: Sequence[int], violations: list[FieldViolation]) -> tuple[int, ...]:
    """Return the types in ascending order and each once, so that equal filters are the same.

    An unknown type adds a violation. This server has no such entries, and a caller that asks for
    them must not take that for an answer.
    """
    if len(wanted) > _MAX_TYPES:
        violations.append(FieldViolation("types", f"must have at most {_MAX_TYPES} items"))
        return ()
    violations += [
        FieldViolation("types", f"{one} is not the type of an entry here")
        for one in sorted(set(wanted) - _ENTRY_TYPES)
    ]
    return tuple(sorted(set(wanted)))


def _query_of(request: pb.GetTaskLogsRequest, sees_only: str | None, page_bytes: int) -> LogQuery:
    violations: list[FieldViolation] = []
    ref, source, tail = _task_source_and_tail(request, violations)
    if request.page_size < 0:
        violations.append(FieldViolation("page_size", "must not be negative"))
    if request.HasField("epoch") and request.epoch < 1:
        violations.append(FieldViolation("epoch", "epochs are numbered from 1"))
    max_staleness = None
    if request.HasField("max_staleness"):
        max_staleness = length_of(request.max_staleness, "max_staleness", violations)
    types = _types_of(request.types, violations)
    if ref is None or violations:
        raise InvalidFields(violations)
    return LogQuery(
        ref=visible(ref, sees_only),
        sees_only=sees_only,
        source=source,
        tail=tail,
        page_rows=min(request.page_size, MAX_PAGE_ROWS) or MAX_PAGE_ROWS,
        page_bytes=page_bytes,
        page_token=request.page_token,
        epoch=request.epoch if request.HasField("epoch") else None,
        max_staleness=max_staleness,
        fingerprint=partial(_fingerprint, request, types),
        types=types,
    )


def _fingerprint(request: pb.GetTaskLogsRequest, types: Sequence[int]) -> bytes:
    # Fields of a newer client, unknown here, are included: they might mean another range.
    arguments = pb.GetTaskLogsRequest()
    arguments.CopyFrom(request)
    arguments.ClearField("page_token")
    arguments.ClearField("page_size")
    arguments.types[:] = [types_pb2.TaskLogType.ValueType(one) for one in types]
    return fingerprint(arguments.SerializeToString(deterministic=True))


def _time_left(context: grpc.aio.ServicerContext[Any, Any]) -> timedelta | None:
    # The stubs leave out that a caller may have no deadline.
    seconds: Any = context.time_remaining()
    if seconds is None:
        return None
    seconds = min(seconds, 86_400.0)
    ahead = min(
        _MOST_AHEAD_SECONDS, max(_ANSWER_AHEAD_SECONDS, 0.1 * seconds), _MOST_AHEAD * seconds
    )
    return timedelta(seconds=max(0.0, seconds - ahead))


def encode_answer(answer: LogAnswer) -> bytes:
    """Return the encoded response without its entries, which are stored as they are sent."""
    return pb.GetTaskLogsResponse(
        snapshot=answer.snapshot,
        snapshot_at=None if answer.snapshot_at is None else timestamp(answer.snapshot_at),
        status=TASK_STATUS.encode(answer.status),
        epoch=answer.epoch,
        revision=answer.revision,
        first_id=answer.first_id,
        cursor=answer.cursor,
        next_page_token=answer.next_page_token,
        task_id=answer.task_id,
    ).SerializeToString()
