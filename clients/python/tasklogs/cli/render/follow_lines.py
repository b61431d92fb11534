"""Prints a follow for programs: one event per line, as the API's JSON.

An entry that grows is printed whole, never as a delta.
"""

from __future__ import annotations

from tasklogs.cli.render.protobuf_json import to_dict, to_line
from tasklogs.cli.render.stderr import print_notice
from tasklogs.cli.render.stdout import write_line
from tasklogs.client.entry import LogEntry
from tasklogs.client.events import (
    CaughtUp,
    EntriesChanged,
    EntryWithdrawn,
    EpochStarted,
    FollowEvent,
    Progress,
    StatusChanged,
)
from tasklogs.client.task import StatusDetail
from tasklogs.v1 import task_logs_pb2, types_pb2


class FollowLines:
    """Prints events as they come."""

    def show(self, event: FollowEvent) -> None:
        """Print `event` as one line, with its whole cursor."""
        fields = to_dict(_message(event))
        del fields["cursorEnd"]
        write_line(to_line(fields))

    def notice(self, message: str) -> None:
        """Print a line on stderr that is not an event."""
        print_notice(message)

    def finish(self) -> None:
        """Do nothing: every line is complete."""


def entry_message(entry: LogEntry, *, content: bool = True) -> types_pb2.TaskLogEntry:
    """Return `entry` as the API sends it, to the nanosecond; without its content if asked to."""
    message = types_pb2.TaskLogEntry(
        id=entry.id,
        type=types_pb2.TaskLogType.ValueType(entry.type),
        revision=entry.revision,
        dropped_bytes=entry.dropped_bytes,
        source_id=entry.source_id,
        name=entry.name,
        call_id=entry.call_id,
        content=entry.content if content else "",
    )
    message.time.FromNanoseconds(entry.time_ns)
    return message


def _message(event: FollowEvent) -> task_logs_pb2.FollowTaskLogsResponse:
    message = task_logs_pb2.FollowTaskLogsResponse(cursor=event.cursor)
    match event:
        case StatusChanged():
            message.status.status = types_pb2.TaskStatus.ValueType(event.status)
            message.status.status_detail.CopyFrom(_detail(event.detail))
            message.status.task_id = event.task_id or ""
        case EntriesChanged():
            message.entries.epoch = event.epoch
            message.entries.logs.extend(map(entry_message, event.entries))
        case EntryWithdrawn():
            withdrawn = message.entry_withdrawn
            withdrawn.epoch, withdrawn.id = event.epoch, event.id
            withdrawn.revision = event.revision
        case EpochStarted():
            message.epoch_started.epoch = event.epoch
            message.epoch_started.revision = event.revision
        case CaughtUp():
            message.caught_up.SetInParent()
        case Progress():
            message.progress.SetInParent()
    return message


def _detail(detail: StatusDetail) -> types_pb2.StatusDetail:
    build, agent, app = detail.build, detail.agent, detail.app
    computed = types_pb2.TaskStatus.ValueType
    return types_pb2.StatusDetail(
        build=types_pb2.StatusDetail.Build(
            number=build.number,
            transition=types_pb2.BuildTransition.ValueType(build.transition),
            job_status=types_pb2.JobStatus.ValueType(build.job_status),
            computed=computed(build.computed),
        ),
        agent=types_pb2.StatusDetail.Agent(
            lifecycle=types_pb2.AgentLifecycle.ValueType(agent.lifecycle),
            computed=computed(agent.computed),
        ),
        app=types_pb2.StatusDetail.App(
            health=types_pb2.AppHealth.ValueType(app.health), computed=computed(app.computed)
        ),
    )
