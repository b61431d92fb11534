"""Tasks as messages, and the messages that create and update them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from tasklogs.v1 import tasks_pb2 as pb
from tasklogs_server.domain.description import DescriptionChange, NewTask
from tasklogs_server.domain.errors import FieldViolation, InvalidFields
from tasklogs_server.domain.labels import label_violations
from tasklogs_server.domain.names import (
    is_one_line,
    new_owner_violations,
    parse_uuid,
    task_name_violations,
)
from tasklogs_server.domain.status import derive
from tasklogs_server.store.records import LogHead, Task
from tasklogs_server.wire.enums import TASK_STATUS, status_detail
from tasklogs_server.wire.times import timestamp

_PROMPT_BYTES = 64 * 1024
_DISPLAY_NAME_CHARACTERS = 255

_UPDATABLE = ("display_name", "labels")


def new_task(request: pb.CreateTaskRequest, owner: str) -> NewTask:
    """Return the task to create for `owner`. Raises InvalidFields."""
    violations = [*task_name_violations(request.name), *new_owner_violations(owner)]
    violations += _display_name_violations(request.display_name)
    if len(request.prompt.encode()) > _PROMPT_BYTES:
        violations.append(FieldViolation("prompt", f"must be at most {_PROMPT_BYTES} bytes"))
    request_id = _request_id(request.request_id, violations)
    violations += label_violations(request.labels)
    if violations:
        raise InvalidFields(violations)
    return NewTask(
        owner=owner,
        name=request.name,
        display_name=request.display_name,
        prompt=request.prompt,
        standalone=request.standalone,
        labels=dict(request.labels),
        request_id=request_id,
    )


def description_change(
    request: pb.UpdateTaskRequest, violations: list[FieldViolation]
) -> DescriptionChange:
    """Return the change that a request asks for. What is invalid in it adds violations.

    The values of fields that are not to change are not looked at.
    """
    changed = _changed_fields(request, violations)
    display_name = request.display_name if "display_name" in changed else None
    if display_name is not None:
        violations += _display_name_violations(display_name)
    labels = None
    if "labels" in changed:
        violations += label_violations(request.labels)
        labels = dict(request.labels)
    return DescriptionChange(display_name, labels, request.etag or None)


def encode_task(task: Task) -> pb.Task:
    """Encode a task, without what was not read of it."""
    detail = derive(task.facts)
    return pb.Task(
        id=str(task.task_id),
        owner=task.owner,
        name=task.name,
        display_name=task.display_name,
        prompt=task.prompt or "",
        standalone=task.standalone,
        created_at=timestamp(task.created_at),
        status=TASK_STATUS.encode(detail.status),
        status_detail=status_detail(detail),
        log=_log(task.head),
        agent_connected=task.agent_connected,
        labels=task.labels,
        etag=task.etag or "",
    )


def _changed_fields(
    request: pb.UpdateTaskRequest, violations: list[FieldViolation]
) -> Sequence[str]:
    paths = request.update_mask.paths
    if not paths:
        return [field for field in _UPDATABLE if getattr(request, field)]
    if not set(paths) <= {*_UPDATABLE, "*"}:
        violations.append(
            FieldViolation("update_mask", f"may have {', '.join(_UPDATABLE)}, or * for both")
        )
    return _UPDATABLE if "*" in paths else paths


def _request_id(text: str, violations: list[FieldViolation]) -> UUID | None:
    if not text:
        return None
    request_id = parse_uuid(text)
    if request_id is None:
        violations.append(FieldViolation("request_id", "must be a UUID"))
    return request_id


def _display_name_violations(display_name: str) -> list[FieldViolation]:
    if len(display_name) > _DISPLAY_NAME_CHARACTERS:
        limit = f"must be at most {_DISPLAY_NAME_CHARACTERS} characters"
        return [FieldViolation("display_name", limit)]
    if not is_one_line(display_name):
        return [FieldViolation("display_name", "must not contain control characters")]
    return []


def _log(head: LogHead) -> pb.Task.Log:
    return pb.Task.Log(
        epoch=head.epoch,
        entries=head.held_entries,
        revision=head.revision,
        bytes=head.held_bytes,
        snapshot_at=None if head.snapshot_at is None else timestamp(head.snapshot_at),
    )
