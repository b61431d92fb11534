"""`tasklogs.v1.Tasks`: orchestrators and operators manage tasks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import grpc

from tasklogs.v1 import tasks_pb2 as pb
from tasklogs_server.concurrency.loop_share import LoopShare
from tasklogs_server.domain.caller import User, visible
from tasklogs_server.domain.description import TaskView
from tasklogs_server.domain.errors import FieldViolation, InvalidFields, TaskNotFound
from tasklogs_server.domain.labels import parse_selectors
from tasklogs_server.domain.names import TaskRef, owner_violations, parse_task_ref
from tasklogs_server.domain.reports import report_agent, report_build
from tasklogs_server.reads.tokens import (
    TokenLayout,
    check_fingerprint,
    datetime_of,
    fingerprint,
    micros_of,
)
from tasklogs_server.services.task_codec import description_change, encode_task, new_task
from tasklogs_server.store.records import Task
from tasklogs_server.store.task_lists import NEWEST, ListPosition
from tasklogs_server.tasks.directory import TaskDirectory
from tasklogs_server.wire.enums import (
    AGENT_LIFECYCLE,
    APP_HEALTH,
    BUILD_TRANSITION,
    JOB_STATUS,
    TASK_STATUS,
    TASK_VIEW,
)

_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000
# A task may have 64 KiB of prompt and 70 KB of labels. A page ends long before 4 MiB, which clients
# refuse by default.
_PAGE_BYTES = 1_000_000

# How long other calls wait while a piece of a list is encoded.
_PIECE_SECONDS = 0.0005
# A task with the longest prompt and labels takes 1 to 2 ms. With a rest twice as long, other
# callers' slowest calls took more than twice their time.
_REST = 4.0

_PAGE_TOKEN = TokenLayout(b"t", "q16s8s")

Context = grpc.aio.ServicerContext[Any, Any]


class TasksService:
    """The handlers of `tasklogs.v1.Tasks`."""

    def __init__(self, directory: TaskDirectory) -> None:
        self._directory = directory
        self._share = LoopShare(rest=_REST)
        """The part of the loop's time that is for encoding lists."""

    async def create_task(
        self, request: pb.CreateTaskRequest, _: Context, caller: User
    ) -> pb.CreateTaskResponse:
        """Create a task, or return the task that an earlier call with the same id created."""
        new = new_task(request, caller.owner_of_new(request.owner))
        created, token = await self._directory.create(new)
        return pb.CreateTaskResponse(task=encode_task(created), agent_token=token)

    async def get_task(self, request: pb.GetTaskRequest, _: Context, caller: User) -> pb.Task:
        """Read a task."""
        violations: list[FieldViolation] = []
        ref = _ref_of(request.task, violations)
        view = TASK_VIEW.decode(request.view, "view", violations) or TaskView.FULL
        if ref is None or violations:
            raise InvalidFields(violations)
        return encode_task(await self._directory.get(visible(ref, caller.sees_only), view))

    async def list_tasks(self, request: pb.ListTasksRequest, _: Context, caller: User) -> bytes:
        """List tasks, newest first. Return the encoded response."""
        owner = caller.owner_to_list(request.owner)
        violations: list[FieldViolation] = []
        status = TASK_STATUS.decode(request.status, "status", violations)
        if request.owner:
            violations += owner_violations(request.owner)
        if request.page_size < 0:
            violations.append(FieldViolation("page_size", "must not be negative"))
        view = TASK_VIEW.decode(request.view, "view", violations) or TaskView.BASIC
        labels = parse_selectors(request.labels, violations)
        if violations:
            raise InvalidFields(violations)
        tasks, after = await self._directory.list_(
            owner=owner,
            status=status,
            after=position_of(request),
            limit=min(request.page_size, MAX_PAGE_SIZE) or _PAGE_SIZE,
            labels=labels,
            view=view,
        )
        encoded, count = await self._encoded(tasks)
        if count < len(tasks):
            last = tasks[count - 1]
            after = (last.created_at, last.task_id)
        token = "" if after is None else page_token_of(after, request)
        # Encoded messages that are joined are one message.
        return encoded + pb.ListTasksResponse(next_page_token=token).SerializeToString()

    async def _encoded(self, tasks: Sequence[Task]) -> tuple[bytes, int]:
        """Return the start of a response with as many tasks as a page may have, and their number.

        To decode and encode a thousand tasks takes 50 ms, so other calls have turns meanwhile.
        """
        parts: list[bytes] = []
        count, size_bytes, is_full = 0, 0, False

        def piece() -> None:
            nonlocal count, size_bytes, is_full
            part = pb.ListTasksResponse()
            until = time.perf_counter() + _PIECE_SECONDS
            while count < len(tasks):
                encoded = encode_task(tasks[count])
                size_bytes += encoded.ByteSize()
                is_full = count > 0 and size_bytes > _PAGE_BYTES
                if is_full:
                    break
                part.tasks.append(encoded)
                count += 1
                if time.perf_counter() >= until:
                    break
            parts.append(part.SerializeToString())

        while count < len(tasks) and not is_full:
            await self._share.run(piece)
        return b"".join(parts), count

    async def delete_task(
        self, request: pb.DeleteTaskRequest, _: Context, caller: User
    ) -> pb.DeleteTaskResponse:
        """Delete a task and its log. With `allow_missing`, there may be no such task."""
        ref = parse_task_ref(request.task)
        try:
            await self._directory.delete(visible(ref, caller.sees_only))
        except TaskNotFound:
            if not request.allow_missing:
                raise
        return pb.DeleteTaskResponse()

    async def update_task(self, request: pb.UpdateTaskRequest, _: Context, caller: User) -> pb.Task:
        """Change the display name or the labels."""
        violations: list[FieldViolation] = []
        ref = _ref_of(request.task, violations)
        change = description_change(request, violations)
        if ref is None or violations:
            raise InvalidFields(violations)
        return encode_task(await self._directory.update(visible(ref, caller.sees_only), change))

    async def report_build(
        self, request: pb.ReportBuildRequest, _: Context, caller: User
    ) -> pb.ReportBuildResponse:
        """Record the state of a workspace build."""
        violations: list[FieldViolation] = []
        ref = _ref_of(request.task, violations)
        _check_build_number(request.build_number, violations)
        transition = BUILD_TRANSITION.decode(request.transition, "transition", violations)
        job_status = JOB_STATUS.decode(request.job_status, "job_status", violations)
        if transition is None and not request.transition:
            violations.append(FieldViolation("transition", "is required"))
        if job_status is None and not request.job_status:
            violations.append(FieldViolation("job_status", "is required"))
        if ref is None or transition is None or job_status is None or violations:
            raise InvalidFields(violations)
        task = await self._directory.report_build(
            visible(ref, caller.sees_only),
            lambda facts: report_build(facts, request.build_number, transition, job_status),
        )
        return pb.ReportBuildResponse(task=encode_task(task))

    async def report_agent(
        self, request: pb.ReportAgentRequest, _: Context, caller: User
    ) -> pb.ReportAgentResponse:
        """Record the state of the agent and of the task app."""
        violations: list[FieldViolation] = []
        ref = _ref_of(request.task, violations)
        _check_build_number(request.build_number, violations)
        lifecycle = AGENT_LIFECYCLE.decode(request.lifecycle, "lifecycle", violations)
        health = APP_HEALTH.decode(request.app_health, "app_health", violations)
        if not request.lifecycle and not request.app_health:
            violations.append(FieldViolation("lifecycle", "lifecycle or app_health is required"))
        if ref is None or violations:
            raise InvalidFields(violations)
        task = await self._directory.report(
            visible(ref, caller.sees_only),
            lambda facts: report_agent(facts, request.build_number, lifecycle, health),
        )
        return pb.ReportAgentResponse(task=encode_task(task))

    async def rotate_agent_token(
        self, request: pb.RotateAgentTokenRequest, _: Context, caller: User
    ) -> pb.RotateAgentTokenResponse:
        """Replace the agent's token. The old one is not valid any more."""
        token = await self._directory.rotate_agent_token(_visible(request.task, caller))
        return pb.RotateAgentTokenResponse(agent_token=token)


def _visible(task: str, caller: User) -> TaskRef:
    return visible(parse_task_ref(task), caller.sees_only)


def _ref_of(text: str, violations: list[FieldViolation]) -> TaskRef | None:
    try:
        return parse_task_ref(text)
    except InvalidFields as error:
        violations += error.violations
        return None


def _check_build_number(number: int, violations: list[FieldViolation]) -> None:
    if number < 1:
        violations.append(FieldViolation("build_number", "builds are numbered from 1"))


def page_token_of(position: ListPosition, request: pb.ListTasksRequest) -> str:
    """Return the token for the page that begins after `position`."""
    created_at, task_id = position
    return _PAGE_TOKEN.seal(micros_of(created_at), task_id.bytes, _fingerprint(request))


def position_of(request: pb.ListTasksRequest) -> ListPosition:
    """Return where the page begins.

    Raises InvalidFields if the token is damaged, or was given for other arguments.
    """
    if not request.page_token:
        return NEWEST
    micros, task_id, made_for = _PAGE_TOKEN.unseal(request.page_token, "page_token")
    check_fingerprint(made_for, _fingerprint(request))
    return datetime_of(micros), UUID(bytes=task_id)


def _fingerprint(request: pb.ListTasksRequest) -> bytes:
    arguments = pb.ListTasksRequest()
    arguments.CopyFrom(request)
    arguments.ClearField("page_token")
    arguments.ClearField("page_size")
    return fingerprint(arguments.SerializeToString(deterministic=True))
