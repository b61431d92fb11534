"""The calls of every RPC: those that are answered, and those that are refused and how."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from google.protobuf import field_mask_pb2
from google.protobuf.struct_pb2 import Struct
from grpc_channelz.v1 import channelz_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from tasklogs.v1 import task_agents_pb2, task_logs_pb2, tasks_pb2, types_pb2
from tests.support.fixtures.agent_stream import log_entry
from tests.system.endurance.callers import OK, Callers, Who

LOGS, TASKS, AGENTS = "/tasklogs.v1.TaskLogs/", "/tasklogs.v1.Tasks/", "/tasklogs.v1.TaskAgents/"
HEALTH, CHANNELZ = "/grpc.health.v1.Health/", "/grpc.channelz.v1.Channelz/"
REFLECTION = tuple(
    f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    for version in ("v1", "v1alpha")
)
TASK, UPLOADED, ROTATED, NOTHING = "owner/task", "owner/uploaded", "owner/rotated", "owner/nothing"
_REFUSED_MESSAGES = 200
_TIME = "2023-11-14T22:13:20Z"

Make: TypeAlias = "Callable[[Callers], Awaitable[str]]"


@dataclass(frozen=True)
class Case:
    """One call, and the status that it must have."""

    path: str
    make: Make
    status: str = OK


@dataclass
class Made:
    """The tasks that calls have created, and that others delete."""

    numbers: Iterator[int] = field(default_factory=itertools.count)
    names: list[str] = field(default_factory=list)
    uploading: asyncio.Lock = field(default_factory=asyncio.Lock)
    """A task takes one upload at a time."""


@dataclass(frozen=True)
class Ids:
    """What channelz calls the server and one of its sockets."""

    server: int
    socket: int

    @classmethod
    async def of(cls, callers: Callers) -> Ids:
        _, found = await callers.unary(CHANNELZ + "GetServers", b"", Who.ADMIN)
        server = channelz_pb2.GetServersResponse.FromString(found).server[0].ref.server_id
        asked = channelz_pb2.GetServerSocketsRequest(server_id=server)
        _, found = await callers.unary(CHANNELZ + "GetServerSockets", asked, Who.ADMIN)
        sockets = channelz_pb2.GetServerSocketsResponse.FromString(found).socket_ref
        return cls(server, sockets[0].socket_id)


NEVER_ANSWERED = frozenset({CHANNELZ + "GetChannel", CHANNELZ + "GetSubchannel"})
"""A server has no channels, so these RPCs find nothing."""


def answered(made: Made, ids: Ids) -> list[Case]:
    """Return a call of each RPC that is answered. Those of Connect are in `sessions`."""
    return [
        _unary(
            LOGS + "GetTaskLogs",
            task_logs_pb2.GetTaskLogsRequest(task=TASK, source=task_logs_pb2.LOG_SOURCE_SNAPSHOT),
        ),
        _follow(TASK, Who.OWNER, OK),
        _unary(LOGS + "GetServerInfo", b""),
        Case(TASKS + "CreateTask", lambda callers: _create(callers, made)),
        _unary(TASKS + "GetTask", tasks_pb2.GetTaskRequest(task=TASK)),
        _unary(TASKS + "ListTasks", tasks_pb2.ListTasksRequest(page_size=10)),
        _unary(TASKS + "UpdateTask", _update(etag="")),
        Case(TASKS + "DeleteTask", lambda callers: _delete(callers, made)),
        _unary(TASKS + "ReportBuild", report_build(TASK)),
        _unary(TASKS + "ReportAgent", report_agent(TASK)),
        _unary(TASKS + "RotateAgentToken", tasks_pb2.RotateAgentTokenRequest(task=ROTATED)),
        _one_at_a_time(
            made, _unary(AGENTS + "UploadLogSnapshot", _conversation("agent"), who=Who.AGENT)
        ),
        _one_at_a_time(made, _parts(Who.AGENT, OK)),
        _unary(HEALTH + "Check", b"", who=Who.NOBODY),
        _unary(HEALTH + "List", b"", who=Who.NOBODY),
        _watch(b"", OK),
        *(
            _channelz(name, request, OK, Who.ADMIN)
            for name, request in (
                ("GetServers", b""),
                ("GetTopChannels", b""),
                ("GetServer", channelz_pb2.GetServerRequest(server_id=ids.server)),
                ("GetServerSockets", channelz_pb2.GetServerSocketsRequest(server_id=ids.server)),
                ("GetSocket", channelz_pb2.GetSocketRequest(socket_id=ids.socket)),
            )
        ),
        *(_reflection(path, Who.OWNER, OK) for path in REFLECTION),
    ]


def refused(made: Made) -> list[Case]:
    """Return calls of each RPC that are refused, in each way that it has."""
    cases = [
        *_by_anyone(made),
        _unary(LOGS + "GetTaskLogs", task_logs_pb2.GetTaskLogsRequest(task=NOTHING), "NOT_FOUND"),
        _follow(NOTHING, Who.OWNER, "NOT_FOUND"),
        _follow(TASK, Who.OTHER, "NOT_FOUND"),
        _follow(TASK, Who.NOBODY, "UNAUTHENTICATED"),
        _unary(TASKS + "CreateTask", tasks_pb2.CreateTaskRequest(name="task"), "ALREADY_EXISTS"),
        _unary(TASKS + "GetTask", tasks_pb2.GetTaskRequest(task=TASK), "NOT_FOUND", Who.OTHER),
        _unary(
            TASKS + "ListTasks",
            tasks_pb2.ListTasksRequest(owner="owner"),
            "PERMISSION_DENIED",
            Who.OTHER,
        ),
        _unary(TASKS + "UpdateTask", _update(etag="former"), "ABORTED"),
        _unary(TASKS + "DeleteTask", tasks_pb2.DeleteTaskRequest(task=NOTHING), "NOT_FOUND"),
        _unary(
            TASKS + "ReportBuild",
            report_build(TASK, types_pb2.JOB_STATUS_PENDING),
            "FAILED_PRECONDITION",
        ),
        _unary(TASKS + "ReportAgent", report_agent(TASK, build_number=7), "FAILED_PRECONDITION"),
        _unary(
            TASKS + "RotateAgentToken",
            tasks_pb2.RotateAgentTokenRequest(task=NOTHING),
            "NOT_FOUND",
        ),
        _one_at_a_time(
            made,
            _unary(
                AGENTS + "UploadLogSnapshot",
                _conversation("nobody", _REFUSED_MESSAGES),
                "INVALID_ARGUMENT",
                Who.AGENT,
            ),
        ),
        _parts(Who.OWNER, "PERMISSION_DENIED"),
        _parts(Who.NOBODY, "UNAUTHENTICATED"),
        _connect([b""], Who.AGENT, "INVALID_ARGUMENT"),
        _connect([b""], Who.OWNER, "PERMISSION_DENIED"),
        _connect([b""], Who.NOBODY, "UNAUTHENTICATED"),
        _unary(
            HEALTH + "Check",
            health_pb2.HealthCheckRequest(service="nothing"),
            "NOT_FOUND",
            Who.NOBODY,
        ),
        _watch(b"\xff", "INVALID_ARGUMENT"),
        *(_channelz(name, b"", "PERMISSION_DENIED", Who.OWNER) for name in _CHANNELZ),
        *(_channelz(name, b"", "NOT_FOUND", Who.ADMIN) for name in ("GetChannel", "GetSubchannel")),
        *(_reflection(path, Who.NOBODY, "UNAUTHENTICATED") for path in REFLECTION),
    ]
    return _evenly(cases)


def _by_anyone(made: Made) -> Iterator[Case]:
    """Yield calls without a token, and calls whose request cannot be decoded."""
    for path in _UNARY_WITH_TOKEN:
        who = Who.AGENT if path.startswith(AGENTS) else Who.OWNER
        yield _unary(path, b"", "UNAUTHENTICATED", Who.NOBODY)
        yield _one_at_a_time(made, _unary(path, b"\xff" * 1000, "INVALID_ARGUMENT", who))
    yield _unary(HEALTH + "List", b"\xff" * 1000, "INVALID_ARGUMENT", Who.NOBODY)


def _evenly(cases: list[Case]) -> list[Case]:
    """Repeat cases so that each RPC has about as many."""
    by_path: dict[str, list[Case]] = {}
    for case in cases:
        by_path.setdefault(case.path, []).append(case)
    most = max(len(of_one) for of_one in by_path.values())
    return [
        case
        for of_one in by_path.values()
        for case in itertools.islice(itertools.cycle(of_one), most)
    ]


_UNARY_WITH_TOKEN = (
    LOGS + "GetTaskLogs",
    LOGS + "GetServerInfo",
    *(
        TASKS + name
        for name in (
            *("CreateTask", "GetTask", "ListTasks", "UpdateTask", "DeleteTask"),
            *("ReportBuild", "ReportAgent", "RotateAgentToken"),
        )
    ),
    AGENTS + "UploadLogSnapshot",
)
_CHANNELZ = (
    *("GetChannel", "GetServer", "GetServerSockets", "GetServers"),
    *("GetSocket", "GetSubchannel", "GetTopChannels"),
)


def _unary(path: str, request: Any, status: str = OK, who: Who = Who.OWNER) -> Case:
    async def make(callers: Callers) -> str:
        return (await callers.unary(path, request, who))[0]

    return Case(path, make, status)


def _channelz(name: str, request: Any, status: str, who: Who) -> Case:
    return _unary(CHANNELZ + name, request, status, who)


def _one_at_a_time(made: Made, case: Case) -> Case:
    async def make(callers: Callers) -> str:
        async with made.uploading:
            return await case.make(callers)

    return Case(case.path, make, case.status)


def _follow(task: str, who: Who, status: str) -> Case:
    path = LOGS + "FollowTaskLogs"

    async def make(callers: Callers) -> str:
        return await follow(callers, task, who)

    return Case(path, make, status)


async def follow(callers: Callers, task: str, who: Who) -> str:
    """Follow a task until it has caught up."""
    request = task_logs_pb2.FollowTaskLogsRequest(
        task=task, source=task_logs_pb2.LOG_SOURCE_SNAPSHOT, tail=10
    )
    return await callers.server_stream(LOGS + "FollowTaskLogs", request, who, _is_caught_up)


def _is_caught_up(message: bytes) -> bool:
    return task_logs_pb2.FollowTaskLogsResponse.FromString(message).HasField("caught_up")


def _watch(request: Any, status: str) -> Case:
    path = HEALTH + "Watch"

    async def make(callers: Callers) -> str:
        return await callers.server_stream(path, request, Who.NOBODY, lambda _: True)

    return Case(path, make, status)


def _parts(who: Who, status: str) -> Case:
    path = AGENTS + "UploadLogSnapshotInParts"
    entries = [log_entry(number, "hello") for number in range(3)]
    message = task_agents_pb2.UploadLogSnapshotInPartsRequest(entries=entries, last=True)

    async def make(callers: Callers) -> str:
        return await callers.client_stream(path, [message], who)

    return Case(path, make, status)


def _connect(messages: list[bytes], who: Who, status: str) -> Case:
    path = AGENTS + "Connect"

    async def make(callers: Callers) -> str:
        return await callers.both_streams(path, messages, who)

    return Case(path, make, status)


def _reflection(path: str, who: Who, status: str) -> Case:
    request = reflection_pb2.ServerReflectionRequest(list_services="")

    async def make(callers: Callers) -> str:
        return await callers.both_streams(path, [request], who)

    return Case(path, make, status)


async def _create(callers: Callers, made: Made) -> str:
    name = f"made-{next(made.numbers)}"
    request = tasks_pb2.CreateTaskRequest(name=name, prompt="p" * 1000, labels={"key": "value"})
    status, _ = await callers.unary(TASKS + "CreateTask", request, Who.OWNER)
    if status == OK:
        made.names.append(name)
    return status


async def _delete(callers: Callers, made: Made) -> str:
    name = made.names.pop() if made.names else "nothing"
    request = tasks_pb2.DeleteTaskRequest(task=f"owner/{name}", allow_missing=True)
    return (await callers.unary(TASKS + "DeleteTask", request, Who.OWNER))[0]


def _update(*, etag: str) -> tasks_pb2.UpdateTaskRequest:
    return tasks_pb2.UpdateTaskRequest(
        task=TASK,
        display_name="a name",
        update_mask=field_mask_pb2.FieldMask(paths=["display_name"]),
        etag=etag,
    )


def report_build(
    task: str, job: types_pb2.JobStatus.ValueType = types_pb2.JOB_STATUS_SUCCEEDED
) -> tasks_pb2.ReportBuildRequest:
    return tasks_pb2.ReportBuildRequest(
        task=task,
        build_number=1,
        transition=types_pb2.BUILD_TRANSITION_START,
        job_status=job,
    )


def report_agent(task: str, build_number: int = 1) -> tasks_pb2.ReportAgentRequest:
    return tasks_pb2.ReportAgentRequest(
        task=task,
        build_number=build_number,
        lifecycle=types_pb2.AGENT_LIFECYCLE_READY,
        app_health=types_pb2.APP_HEALTH_HEALTHY,
    )


def _conversation(last_role: str, messages: int = 3) -> task_agents_pb2.UploadLogSnapshotRequest:
    """Return an upload that stores the same entries as the upload in parts."""
    data = Struct()
    listed: list[dict[str, Any]] = [
        {"id": number, "role": "agent", "content": "hello", "time": _TIME}
        for number in range(messages)
    ]
    listed[-1]["role"] = last_role
    body: Mapping[str, Any] = {"messages": listed}
    data.update(body)
    return task_agents_pb2.UploadLogSnapshotRequest(
        format=task_agents_pb2.SNAPSHOT_FORMAT_AGENTAPI, data=data
    )
