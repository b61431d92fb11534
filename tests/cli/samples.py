"""Tasks and pages, as a server sends them."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from tasklogs.v1 import task_logs_pb2, tasks_pb2, types_pb2

CREATED_AT = Timestamp(seconds=1_795_000_000)
SNAPSHOT_AT = Timestamp(seconds=1_795_000_100)
TASK_ID = "0b54a3f0-6d7c-4a53-9a53-0d8b1c6c6f11"


def task(name: str = "demo", display_name: str = "") -> tasks_pb2.Task:
    """A paused task with two entries in its second epoch."""
    return tasks_pb2.Task(
        id=TASK_ID,
        owner="local",
        name=name,
        display_name=display_name,
        created_at=CREATED_AT,
        status=types_pb2.TASK_STATUS_PAUSED,
        status_detail=types_pb2.StatusDetail(
            build=types_pb2.StatusDetail.Build(
                number=2,
                transition=types_pb2.BUILD_TRANSITION_STOP,
                job_status=types_pb2.JOB_STATUS_SUCCEEDED,
                computed=types_pb2.TASK_STATUS_PAUSED,
            ),
            agent=types_pb2.StatusDetail.Agent(
                lifecycle=types_pb2.AGENT_LIFECYCLE_START_TIMEOUT,
                computed=types_pb2.TASK_STATUS_ACTIVE,
            ),
        ),
        log=tasks_pb2.Task.Log(
            epoch=2, entries=2, revision=9, bytes=12_345, snapshot_at=SNAPSHOT_AT
        ),
        agent_connected=False,
    )


def entry(entry_id: int, content: str, dropped_bytes: int = 0) -> types_pb2.TaskLogEntry:
    """An entry; those with even ids are the user's."""
    speakers = (types_pb2.TASK_LOG_TYPE_INPUT, types_pb2.TASK_LOG_TYPE_OUTPUT)
    return types_pb2.TaskLogEntry(
        id=entry_id,
        type=speakers[entry_id % 2],
        time=Timestamp(seconds=CREATED_AT.seconds + entry_id),
        content=content,
        revision=entry_id + 1,
        dropped_bytes=dropped_bytes,
    )


def page(
    *entries: types_pb2.TaskLogEntry, snapshot: bool = False, next_page_token: str = ""
) -> task_logs_pb2.GetTaskLogsResponse:
    """A page of an ACTIVE task's log, or of a PAUSED one's."""
    return task_logs_pb2.GetTaskLogsResponse(
        logs=entries,
        snapshot=snapshot,
        snapshot_at=SNAPSHOT_AT,
        status=types_pb2.TASK_STATUS_PAUSED if snapshot else types_pb2.TASK_STATUS_ACTIVE,
        epoch=1,
        revision=2,
        first_id=0,
        cursor="here",
        next_page_token=next_page_token,
    )
