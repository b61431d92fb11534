"""The worst that the valid token of one user, or of one admin, allows."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from typing import Any

import grpc.aio
from grpc_reflection.v1alpha import reflection_pb2

from tasklogs.v1 import task_agents_pb2, task_logs_pb2, tasks_pb2, types_pb2
from tests.system.hostile import frames
from tests.system.hostile.behaviours.callers import (
    LOST,
    Request,
    Stream,
    by_clients,
    call,
    dialled,
    in_turn,
    metadata,
)
from tests.system.hostile.behaviours.repeated import by_many
from tests.system.hostile.behaviours.tokens_agent import rewrite
from tests.system.hostile.frames import Kind
from tests.system.hostile.peer import Peer, Tally
from tests.system.hostile.target import LABELS, PROMPT, Target

_TASKS = "/tasklogs.v1.Tasks/"
_GET_TASK_LOGS = "/tasklogs.v1.TaskLogs/GetTaskLogs"
_FOLLOW_TASK_LOGS = "/tasklogs.v1.TaskLogs/FollowTaskLogs"
_UPLOAD = "/tasklogs.v1.TaskAgents/UploadLogSnapshot"
_CHECK, _WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
_REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

_NO_WINDOW = {frames.INITIAL_WINDOW_SIZE: 0}
_FOLLOWS = 500
_REFLECTION_BYTES = 4_000_000
_PAUSE_SECONDS = 0.2


async def refused_calls(target: Target, tally: Tally) -> None:
    """Calls that are refused, of every kind: bad fields, no such task, stale, not allowed."""
    user, agent = target.user_token, target.agent_tokens["uploads"]
    kinds: list[tuple[str, Any, str | None]] = [
        (_GET_TASK_LOGS, task_logs_pb2.GetTaskLogsRequest(task="mallory/nothing"), user),
        (_GET_TASK_LOGS, task_logs_pb2.GetTaskLogsRequest(task="n" * 100_000), user),
        (
            _GET_TASK_LOGS,
            task_logs_pb2.GetTaskLogsRequest(task=target.task, page_token="t" * 100_000),
            user,
        ),
        (_TASKS + "ListTasks", tasks_pb2.ListTasksRequest(owner="alice-0"), user),
        (_TASKS + "ListTasks", tasks_pb2.ListTasksRequest(labels=["L"] * 100_000), user),
        (_TASKS + "CreateTask", tasks_pb2.CreateTaskRequest(name="Bad", prompt=PROMPT * 10), user),
        (_TASKS + "GetTask", tasks_pb2.GetTaskRequest(task=target.task), agent),
        (_TASKS + "GetTask", tasks_pb2.GetTaskRequest(task=target.task), None),
        (_TASKS + "ReportBuild", _report(target.task, build_number=1), user),
        (_UPLOAD, task_agents_pb2.UploadLogSnapshotRequest(), user),
        ("/tasklogs.v1.Tasks/NoSuchMethod", tasks_pb2.GetTaskRequest(), user),
    ]
    requests = [Request(path, one.SerializeToString(), token) for path, one, token in kinds]
    await in_turn(target, tally, requests, connections=4, at_once=10)


async def lists(target: Target, tally: Tally) -> None:
    """Ask for the longest pages of tasks, by labels that they have and that they lack."""
    await _lists(target, tally, target.user_token, "")


async def lists_of_an_admin(target: Target, tally: Tally) -> None:
    """The same over the tasks of all owners."""
    await _lists(target, tally, target.admin_token, "")


async def _lists(target: Target, tally: Tally, token: str | None, owner: str) -> None:
    selectors = [f"{key}={value}" for key, value in LABELS.items()][:16]
    kinds: list[dict[str, Any]] = [
        {"view": tasks_pb2.TASK_VIEW_FULL},
        {"labels": selectors},
        {"labels": ["label-0=lacking"]},
        {"status": types_pb2.TASK_STATUS_ERROR},
    ]
    requests = [
        Request(
            _TASKS + "ListTasks",
            tasks_pb2.ListTasksRequest(owner=owner, page_size=1000, **kind).SerializeToString(),
            token,
        )
        for kind in kinds
    ]
    await in_turn(target, tally, requests, connections=2, at_once=8)


async def pages(target: Target, tally: Tally) -> None:
    """Read whole pages of a large log, and read them all."""
    encoded = _whole_pages(target)
    request = Request(_GET_TASK_LOGS, encoded, target.user_token)
    await in_turn(target, tally, [request], connections=4, at_once=8)


async def tasks_that_come_and_go(target: Target, tally: Tally) -> None:
    """Create tasks with prompts of 64 KB and 64 long labels, and delete them."""
    numbers = itertools.count()

    async def churn(channel: grpc.aio.Channel) -> None:
        while True:
            name = f"churn-{next(numbers)}"
            create = tasks_pb2.CreateTaskRequest(name=name, prompt=PROMPT, labels=LABELS)
            encoded = create.SerializeToString()
            await call(channel, Request(_TASKS + "CreateTask", encoded, target.user_token), tally)
            delete = tasks_pb2.DeleteTaskRequest(task=f"mallory/{name}", allow_missing=True)
            encoded = delete.SerializeToString()
            await call(channel, Request(_TASKS + "DeleteTask", encoded, target.user_token), tally)

    await by_clients(target, tally, churn, connections=2, at_once=4)


async def rotations(target: Target, tally: Tally) -> None:
    """Rotate the token of one task again and again."""
    encoded = tasks_pb2.RotateAgentTokenRequest(task="mallory/rotated").SerializeToString()
    request = Request(_TASKS + "RotateAgentToken", encoded, target.user_token)
    await in_turn(target, tally, [request], connections=2, at_once=8)


async def deadlines(target: Target, tally: Tally) -> None:
    """Calls with deadlines of a millisecond, and reads that are cancelled once they are sent."""
    encoded = _whole_pages(target)
    request = Request(_GET_TASK_LOGS, encoded, target.user_token, seconds=0.001)

    async def leave(channel: grpc.aio.Channel) -> None:
        method: Any = channel.unary_unary(_GET_TASK_LOGS)
        while True:
            await call(channel, request, tally)
            calling = method(encoded, metadata=metadata(target.user_token))
            await asyncio.sleep(0)
            calling.cancel()
            tally.sent += 1

    await by_clients(target, tally, leave, connections=2, at_once=8)


async def follows_of_a_busy_log(target: Target, tally: Tally) -> None:
    """Open 500 follows of a busy log of 0.9 MB, and read none of them."""
    request = task_logs_pb2.FollowTaskLogsRequest(task="mallory/busy").SerializeToString()

    async def attack(peer: Peer) -> None:
        await peer.begin(_NO_WINDOW)
        for _ in range(_FOLLOWS // 5):
            await peer.call(target, _FOLLOW_TASK_LOGS, request, target.user_token)
            tally.sent += 1
        while True:
            received = await peer.next_frame()
            await peer.take(received)
            if received.kind == Kind.RST_STREAM:  # the server ended one: open another one
                await asyncio.sleep(_PAUSE_SECONDS)
                await peer.call(target, _FOLLOW_TASK_LOGS, request, target.user_token)
                tally.sent += 1

    async with dialled(target, tally) as channel, asyncio.TaskGroup() as group:
        group.create_task(rewrite(channel, target.agent_tokens["busy"], tally))
        group.create_task(by_many(5, target, tally, attack, pause_seconds=_PAUSE_SECONDS))


async def reflection_unread(target: Target, tally: Tally) -> None:
    """Open 90 streams of reflection with a request of 4 MB each, and read nothing."""
    asked = reflection_pb2.ServerReflectionRequest(file_by_filename="f" * _REFLECTION_BYTES)
    encoded = asked.SerializeToString()

    async def ask(channel: grpc.aio.Channel) -> None:
        method: Any = channel.stream_stream(_REFLECTION)
        while True:
            stream = Stream(method(metadata=metadata(target.user_token)), tally)
            with suppress(*LOST):
                await stream.write(encoded)
            await stream.note_end()
            await asyncio.sleep(_PAUSE_SECONDS)

    await by_clients(target, tally, ask, connections=9, at_once=10)


async def reflection_flood(target: Target, tally: Tally) -> None:
    """Ask for the same file on 20 streams of reflection, as fast as the answers come."""
    asked = reflection_pb2.ServerReflectionRequest(
        file_containing_symbol="tasklogs.v1.TaskLogs"
    ).SerializeToString()

    async def ask(channel: grpc.aio.Channel) -> None:
        method: Any = channel.stream_stream(_REFLECTION)
        while True:
            stream = Stream(method(metadata=metadata(target.user_token)), tally)
            with suppress(*LOST):
                while True:
                    await stream.write(asked)
                    if not isinstance(await stream.call.read(), bytes):
                        break
            await stream.note_end()
            await asyncio.sleep(_PAUSE_SECONDS)

    await by_clients(target, tally, ask, connections=2, at_once=10)


async def health_of_anyone(target: Target, tally: Tally) -> None:
    """Without a token: 2,000 watches of health that nobody reads, and checks without a pause."""

    async def watch(peer: Peer) -> None:
        await peer.begin(_NO_WINDOW)
        for _ in range(500):
            await peer.call(target, _WATCH, b"", None)
            tally.sent += 1
        await peer.behave()

    async with asyncio.TaskGroup() as group:
        group.create_task(by_many(4, target, tally, watch, pause_seconds=_PAUSE_SECONDS))
        check = Request(_CHECK, b"", None)
        group.create_task(in_turn(target, tally, [check], connections=1, at_once=8))


def _whole_pages(target: Target) -> bytes:
    snapshot = task_logs_pb2.LOG_SOURCE_SNAPSHOT
    request = task_logs_pb2.GetTaskLogsRequest(task=target.task, source=snapshot)
    return request.SerializeToString()


def _report(task: str, build_number: int) -> tasks_pb2.ReportBuildRequest:
    return tasks_pb2.ReportBuildRequest(
        task=task,
        build_number=build_number,
        transition=types_pb2.BUILD_TRANSITION_START,
        job_status=types_pb2.JOB_STATUS_PENDING,
    )
