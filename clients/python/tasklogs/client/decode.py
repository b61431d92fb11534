"""Converts the API's messages into the library's values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from tasklogs import enums
from tasklogs.client import task as records
from tasklogs.client.entry import LogEntry
from tasklogs.client.server_info import ServerInfo, ServerLimits
from tasklogs.errors import AnswerUnreadable
from tasklogs.v1 import task_logs_pb2, tasks_pb2, types_pb2

_NANOS = 1_000_000_000


def entry(message: types_pb2.TaskLogEntry) -> LogEntry:
    """Return a whole entry."""
    return LogEntry(
        id=message.id,
        type=enums.TaskLogType(message.type),
        content=message.content,
        time_ns=nanoseconds(message.time),
        revision=message.revision,
        dropped_bytes=message.dropped_bytes,
        source_id=message.source_id,
        name=message.name,
        call_id=message.call_id,
    )


def task(message: tasks_pb2.Task, *, has_prompt: bool) -> records.Task:
    """Return a task. `has_prompt`: the prompt was asked for. Raises AnswerUnreadable."""
    log = message.log
    return records.Task(
        id=message.id,
        owner=message.owner,
        name=message.name,
        display_name=message.display_name,
        prompt=message.prompt if has_prompt else None,
        standalone=message.standalone,
        created_at=_datetime(message.created_at),
        status=enums.TaskStatus(message.status),
        status_detail=status_detail(message.status_detail),
        log=records.LogSummary(
            epoch=log.epoch,
            entries=log.entries,
            revision=log.revision,
            bytes=log.bytes,
            snapshot_at=moment(log, "snapshot_at"),
        ),
        agent_connected=message.agent_connected,
        labels=dict(message.labels),
        etag=message.etag,
    )


def server_info(message: task_logs_pb2.GetServerInfoResponse) -> ServerInfo:
    """Return what a server is."""
    limits = message.limits
    return ServerInfo(
        version=message.version,
        features=frozenset(message.features),
        entry_types=tuple(map(enums.TaskLogType, message.entry_types)),
        limits=ServerLimits(
            message_bytes=limits.message_bytes,
            entry_bytes=limits.entry_bytes,
            page_entries=limits.page_entries,
            page_tasks=limits.page_tasks,
            upload_bytes=limits.upload_bytes,
            default_deadline=_length(limits.default_deadline),
        ),
    )


def status_detail(message: types_pb2.StatusDetail) -> records.StatusDetail:
    """Return the facts of each layer."""
    build, agent, app = message.build, message.agent, message.app
    return records.StatusDetail(
        build=records.BuildFacts(
            number=build.number,
            transition=enums.BuildTransition(build.transition),
            job_status=enums.JobStatus(build.job_status),
            computed=enums.TaskStatus(build.computed),
        ),
        agent=records.AgentFacts(
            lifecycle=enums.AgentLifecycle(agent.lifecycle),
            computed=enums.TaskStatus(agent.computed),
        ),
        app=records.AppFacts(
            health=enums.AppHealth(app.health), computed=enums.TaskStatus(app.computed)
        ),
    )


def moment(message: Message, field: str) -> datetime | None:
    """Return the Timestamp in `field`, in UTC; None if it is unset. Raises AnswerUnreadable."""
    if not message.HasField(field):
        return None
    timestamp: Timestamp = getattr(message, field)
    return _datetime(timestamp)


def nanoseconds(time: Timestamp) -> int:
    """Return nanoseconds since 1970."""
    return time.seconds * _NANOS + time.nanos


def _length(duration: Duration) -> timedelta:
    try:
        return duration.ToTimedelta()
    except (ValueError, OverflowError):
        raise AnswerUnreadable(
            code=grpc.StatusCode.INTERNAL, message="the response has an impossible duration"
        ) from None


def _datetime(timestamp: Timestamp) -> datetime:
    try:
        return timestamp.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise AnswerUnreadable(
            code=grpc.StatusCode.INTERNAL, message="the response has an impossible time"
        ) from None
