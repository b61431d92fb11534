"""Raw bytes as messages to every method of the server, over the wire."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import UUID

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from grpc_channelz.v1 import channelz_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from tasklogs.publish.stream_status import StreamCall
from tasklogs.v1 import task_agents_pb2 as agents
from tasklogs.v1 import task_logs_pb2 as logs
from tasklogs.v1 import tasks_pb2 as tasks
from tasklogs.v1 import types_pb2 as types
from tasklogs_server.domain.status import TaskStatus
from tasklogs_server.middleware.methods import METHODS
from tasklogs_server.reads.tokens import Cursor, PageToken
from tasklogs_server.services.tasks import page_token_of
from tests.fuzz.byte_reader import ByteReader
from tests.fuzz.messages import built
from tests.fuzz.target import Target
from tests.fuzz.targets.agent_script import Script
from tests.fuzz.targets.running_server import RunningServer

# The methods of this project are called more often than those of libraries.
_METHODS: Sequence[str] = sorted(METHODS) + 3 * sorted(one for one in METHODS if "tasklogs" in one)
_CONNECT = "/tasklogs.v1.TaskAgents/Connect"
_UPLOAD = "/tasklogs.v1.TaskAgents/UploadLogSnapshot"
_MANY_MESSAGES = {_CONNECT} | {one for one in _METHODS if "Reflection" in one}
_ENDLESS = {"/tasklogs.v1.TaskLogs/FollowTaskLogs", "/grpc.health.v1.Health/Watch"}
_TAKES_THE_TASK_AWAY = ("DeleteTask", "RotateAgentToken")

_DEMO = "local/demo"
_CALL_SECONDS = 20.0
# A stream without an end has said everything after this much silence.
_SILENCE_SECONDS = 0.05
_MOST_MESSAGES = 40
_FRESH_EVERY = 50

# Values that are only known once the server runs, and the placeholders for them in an input.
_NOBODY, _NOWHERE = UUID(int=0xFFFF << 100), datetime(2026, 1, 1, tzinfo=UTC)
_TASK_ID = str(_NOBODY).encode()
_CURSOR = Cursor(_NOBODY, 2**40).encode().encode()
_PAGE = (
    PageToken(_NOBODY, 1, 1, 2, 3, True, _NOWHERE, TaskStatus.PENDING, bytes(8)).encode().encode()
)
_LIST = page_token_of((_NOWHERE, _NOBODY), tasks.ListTasksRequest()).encode()
_TEXTS = (
    *(_DEMO, _DEMO, _TASK_ID.decode(), _CURSOR.decode(), _PAGE.decode(), _LIST.decode()),
    *("env=prod", "labels", "display_name", "*"),
    *("local/other", "local", "somebody", "demo", "messages", "id", "content", "role", "time"),
    *("tasklogs.v1.TaskLogs", "tasklogs/v1/types.proto", "2026-01-02T03:04:05Z", "user"),
)

# The codes of a handler that failed, and of one that belongs to a library.
_FAULTS = (
    *(grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS),
    *(grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.DEADLINE_EXCEEDED),
)


class Requests(Target):
    """A method's number, a byte of choices, and its message: raw, or built from what follows.

    If a method takes several messages, each has its length before it.

    For any input the answer has a documented status, the log shows no fault, and the next valid
    call is answered.
    """

    name: ClassVar[str] = "requests"
    examples: ClassVar[int] = 80
    max_bytes: ClassVar[int] = 4096
    tokens: ClassVar[Sequence[bytes]] = (
        *(_DEMO.encode(), _TASK_ID, _CURSOR, _PAGE, _LIST, b"local/", b"\x0a\x0alocal/demo"),
        *(b"\x08\x01", b"\x10\x02", b"\x18\xff\xff\xff\xff\x07", b"\x20\x80\x80\x80\x80\xf8\xff"),
    )

    def __init__(self) -> None:
        self._server = RunningServer()
        self._values: dict[bytes, bytes] = {}
        self._token = ""
        self._used = _FRESH_EVERY

    def close(self) -> None:
        self._server.close()

    def seeds(self) -> Iterable[bytes]:
        for method, request in _good_requests():
            message = request.SerializeToString()
            framed = _length_of(message) if method in _MANY_MESSAGES else b""
            yield bytes([_METHODS.index(method), 0]) + framed + message
        for number in range(len(METHODS)):
            yield bytes([number, 0])
            yield bytes([number, 0, 255, 255, 255])
            yield bytes([number, 2]) + b"\x0a\x0alocal/demo"
            for filling in (b"\0\0", b"\0\1", b"\0\2\xa0", b"\0\3\xa1\6"):
                many = bytes([16, 0]) if _METHODS[number] in _MANY_MESSAGES else b""
                yield bytes([number, 8]) + many + filling * (64 // len(filling))
        connect = _METHODS.index(_CONNECT)
        yield bytes([connect, 1, 0, 8, 0x21, 0, 0x23, 0, 0x45, 9, 0x08, 1, 0x31, 4, 255, 1])
        for spoilt in range(10):
            yield bytes(
                [connect, 1, 0, 8, 0x21, 0, 0x23, 9, 0x98, 1, 0x31, 0, 0x31, 255, spoilt, 1]
            )
            yield bytes([connect, 1, 0, 8, 0x91, 0, 0x23, 255, spoilt, 3, 8, 0x10, 0, 0x45])

    def run(self, data: bytes) -> None:
        if self._used >= _FRESH_EVERY:
            self._server.run(self._reset())
        self._used += 1
        method = _METHODS[data[0] % len(_METHODS)] if data else _METHODS[0]
        choices = data[1] if len(data) > 1 else 0
        messages = [
            self._with_placeholders_filled(one) for one in _messages(method, choices, data[2:])
        ]
        wants_token = method in (_CONNECT, _UPLOAD) and not choices & 2
        metadata = [("authorization", f"Bearer {self._token}")] if wants_token else []
        code, details = self._server.run(self._call(method, messages, metadata))
        assert code not in _FAULTS, f"{method}: {code}: {details}"
        if method.endswith(_TAKES_THE_TASK_AWAY):
            self._used = _FRESH_EVERY
        self._server.run(self._check_that_it_answers())

    def _with_placeholders_filled(self, message: bytes) -> bytes:
        for placeholder, value in self._values.items():
            message = message.replace(placeholder, value)
        return message

    async def _call(
        self, method: str, messages: Sequence[bytes], metadata: Any
    ) -> tuple[grpc.StatusCode, str]:
        raw: Any = self._server.channel.stream_stream(method)
        call = StreamCall(raw(metadata=metadata, timeout=_CALL_SECONDS))
        sending = asyncio.create_task(_send(call, messages))
        try:
            await _read(call, until_silent=method in _ENDLESS)
        except grpc.RpcError as error:
            assert isinstance(error, grpc.aio.AioRpcError)
            return error.code(), error.details() or ""
        finally:
            # Leave like a caller that disappears. What the handler then does belongs to this input.
            call.cancel()
            sending.cancel()  # a call that ended before it began would block it
            await asyncio.wait([sending])
        return grpc.StatusCode.OK, ""

    async def _check_that_it_answers(self) -> None:
        request = logs.GetTaskLogsRequest(task=_DEMO, source=logs.LOG_SOURCE_SNAPSHOT, page_size=1)
        call: Any = self._server.channel.unary_unary("/tasklogs.v1.TaskLogs/GetTaskLogs")
        try:
            answer = await call(request.SerializeToString(), timeout=_CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            assert self._used == _FRESH_EVERY, error.details()
            assert error.code() is grpc.StatusCode.NOT_FOUND, error.details()
            return
        logs.GetTaskLogsResponse.FromString(answer)

    async def _reset(self) -> None:
        """Delete all tasks and create the one that inputs name, with readable entries."""
        self._used = 0
        for task in (
            await self._good("ListTasks", tasks.ListTasksRequest(), tasks.ListTasksResponse)
        ).tasks:
            deletion = tasks.DeleteTaskRequest(task=task.id)
            await self._good("DeleteTask", deletion, tasks.DeleteTaskResponse)
        creation = tasks.CreateTaskRequest(name="demo")
        created = await self._good("CreateTask", creation, tasks.CreateTaskResponse)
        other = tasks.CreateTaskRequest(name="other", standalone=True)
        await self._good("CreateTask", other, tasks.CreateTaskResponse)
        self._token = created.agent_token
        metadata = [("authorization", f"Bearer {self._token}")]
        upload: Any = self._server.channel.unary_unary(_UPLOAD)
        await upload(_conversation().SerializeToString(), metadata=metadata)
        read = await self._good(
            "GetTaskLogs",
            logs.GetTaskLogsRequest(task=_DEMO, page_size=1),
            logs.GetTaskLogsResponse,
        )
        listed = await self._good(
            "ListTasks", tasks.ListTasksRequest(page_size=1), tasks.ListTasksResponse
        )
        self._values = {
            _TASK_ID: created.task.id.encode(),
            _CURSOR: read.cursor.encode(),
            _PAGE: read.next_page_token.encode(),
            _LIST: listed.next_page_token.encode(),
        }
        assert all(len(one) == len(value) for one, value in self._values.items())

    async def _good(self, method: str, request: Message, kind: Any) -> Any:
        service = "TaskLogs" if method == "GetTaskLogs" else "Tasks"
        call: Any = self._server.channel.unary_unary(f"/tasklogs.v1.{service}/{method}")
        return kind.FromString(await call(request.SerializeToString(), timeout=_CALL_SECONDS))


async def _send(call: StreamCall, messages: Sequence[bytes]) -> None:
    # A call that has ended accepts no more messages. Only its status counts.
    with contextlib.suppress(grpc.RpcError, asyncio.CancelledError):
        for message in messages:
            await call.write(message)
        await call.done_writing()


async def _read(call: StreamCall, *, until_silent: bool) -> None:
    silence = None  # until the first answer, which every call gets
    with contextlib.suppress(TimeoutError):
        for _ in range(_MOST_MESSAGES):
            async with asyncio.timeout(silence):
                if await call.read() is grpc.aio.EOF:
                    break
            silence = _SILENCE_SECONDS if until_silent else None


def _messages(method: str, choices: int, data: bytes) -> Sequence[bytes]:
    if method not in _MANY_MESSAGES:
        return [_built(method, ByteReader(data)) if choices & 8 else data]
    if method == _CONNECT and choices & 1:
        return _scripted(data)
    reader = ByteReader(data)
    messages: list[bytes] = []
    while not reader.is_done and len(messages) < _MOST_MESSAGES:
        raw = reader.bytes_(reader.byte() * 4 + reader.below(4))
        messages.append(_built(method, ByteReader(raw)) if choices & 8 else raw)
    if method == _CONNECT and not choices & 4:
        messages.insert(0, agents.AgentMessage(hello=agents.Hello()).SerializeToString())
    return messages


def _built(method: str, reader: ByteReader) -> bytes:
    message = built(_request_type(method), reader, _TEXTS)
    if method == _UPLOAD and reader.byte() & 1:
        message.CopyFrom(_conversation())
        message.MergeFrom(built(_request_type(method), reader, _TEXTS))
    return message.SerializeToString()


@functools.cache
def _request_type(method: str) -> Descriptor:
    _, service, name = method.replace("reflection.v1.", "reflection.v1alpha.").split("/")
    found = descriptor_pool.Default().FindServiceByName(service)
    return found.methods_by_name[name].input_type


def _length_of(message: bytes) -> bytes:
    return bytes(divmod(len(message), 4))


def _scripted(data: bytes) -> Sequence[bytes]:
    script = Script(data)
    said = [script.hello()]
    while not script.is_done and len(said) < _MOST_MESSAGES:
        step = script.step()
        if isinstance(step, agents.AgentMessage):
            said.append(step)
    return [one.SerializeToString() for one in said]


@functools.cache
def _conversation() -> agents.UploadLogSnapshotRequest:
    request = agents.UploadLogSnapshotRequest(format=agents.SNAPSHOT_FORMAT_AGENTAPI)
    request.data.update(
        {
            "messages": [
                {
                    "id": number,
                    "role": "agent" if number % 2 else "user",
                    "content": f"{number}: \0 \U0001f600 \x1b[31m",
                    "time": f"2026-01-02T03:04:{number:02}Z",
                }
                for number in range(30)
            ]
        }
    )
    return request


def _good_requests() -> Iterable[tuple[str, Message]]:
    own = "/tasklogs.v1."
    demo, task_id = _DEMO, _TASK_ID.decode()
    get, follow = logs.GetTaskLogsRequest, logs.FollowTaskLogsRequest
    for read in (
        get(task=demo),
        get(task=task_id, source=logs.LOG_SOURCE_SNAPSHOT, tail=3, page_size=2, epoch=1),
        get(task=demo, page_size=1, page_token=_PAGE.decode()),
        get(task=demo, source=logs.LOG_SOURCE_LIVE, max_staleness=Duration(seconds=1, nanos=-1)),
        get(task="a/b/" + "x" * 300, tail=-1, page_size=2**31 - 1, epoch=-(2**31)),
    ):
        yield f"{own}TaskLogs/GetTaskLogs", read
    for followed in (
        follow(task=demo),
        follow(task=task_id, cursor=_CURSOR.decode(), deltas=True),
        follow(task=demo, tail=2, source=logs.LOG_SOURCE_SNAPSHOT),
    ):
        yield f"{own}TaskLogs/FollowTaskLogs", followed
    for created in (
        tasks.CreateTaskRequest(name="made", owner="somebody", display_name="Made", prompt="x"),
        tasks.CreateTaskRequest(name="standing", standalone=True),
        tasks.CreateTaskRequest(name="demo"),
        tasks.CreateTaskRequest(name="again", request_id=task_id, labels={"env": "prod", "a": ""}),
        tasks.CreateTaskRequest(name="other", request_id="\0", labels={"\0": "\0"}),
    ):
        yield f"{own}Tasks/CreateTask", created
    for listed in (
        tasks.ListTasksRequest(page_size=1, page_token=_LIST.decode()),
        tasks.ListTasksRequest(owner="local", status=types.TASK_STATUS_ACTIVE),
        tasks.ListTasksRequest(labels=["env=prod", "a"], view=tasks.TASK_VIEW_FULL),
        tasks.ListTasksRequest(labels=["=", "\0", "a=\0"]),
    ):
        yield f"{own}Tasks/ListTasks", listed
    for updated in (
        tasks.UpdateTaskRequest(task=demo, display_name="New", labels={"env": "dev"}),
        tasks.UpdateTaskRequest(task=task_id, update_mask=FieldMask(paths=["*"]), etag="x"),
        tasks.UpdateTaskRequest(task=demo, update_mask=FieldMask(paths=["labels", "\0"])),
    ):
        yield f"{own}Tasks/UpdateTask", updated
    yield f"{own}Tasks/DeleteTask", tasks.DeleteTaskRequest(task=demo, allow_missing=True)
    yield f"{own}Tasks/GetTask", tasks.GetTaskRequest(task=task_id)
    yield f"{own}Tasks/DeleteTask", tasks.DeleteTaskRequest(task=demo)
    yield f"{own}Tasks/RotateAgentToken", tasks.RotateAgentTokenRequest(task=demo)
    for number, transition, job in ((1, 1, 3), (2, 2, 2), (2**31 - 1, 3, 6), (0, 9, 9)):
        report = tasks.ReportBuildRequest(task=demo, build_number=number)
        report.transition = types.BuildTransition.ValueType(transition)
        report.job_status = types.JobStatus.ValueType(job)
        yield f"{own}Tasks/ReportBuild", report
        agent = tasks.ReportAgentRequest(task=demo, build_number=number)
        agent.lifecycle = types.AgentLifecycle.ValueType(job)
        agent.app_health = types.AppHealth.ValueType(transition)
        yield f"{own}Tasks/ReportAgent", agent
    yield _UPLOAD, _conversation()
    for service in ("", "tasklogs.v1.TaskLogs", "nobody", "\0"):
        yield "/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(service=service)
        yield "/grpc.health.v1.Health/Watch", health_pb2.HealthCheckRequest(service=service)
    for number in (0, 1, 2**63 - 1, -1):
        channelz = "/grpc.channelz.v1.Channelz/"
        yield f"{channelz}GetServer", channelz_pb2.GetServerRequest(server_id=number)
        yield f"{channelz}GetSocket", channelz_pb2.GetSocketRequest(socket_id=number)
        yield f"{channelz}GetChannel", channelz_pb2.GetChannelRequest(channel_id=number)
        subchannel = channelz_pb2.GetSubchannelRequest(subchannel_id=number)
        yield f"{channelz}GetSubchannel", subchannel
        sockets = channelz_pb2.GetServerSocketsRequest(server_id=1, start_socket_id=number)
        yield f"{channelz}GetServerSockets", sockets
        top = channelz_pb2.GetTopChannelsRequest(start_channel_id=number, max_results=number)
        yield f"{channelz}GetTopChannels", top
        servers = channelz_pb2.GetServersRequest(start_server_id=number, max_results=number)
        yield f"{channelz}GetServers", servers
    for asked in (
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_by_filename="tasklogs/v1/types.proto"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="tasklogs.v1.TaskLogs"),
        reflection_pb2.ServerReflectionRequest(all_extension_numbers_of_type="\0"),
    ):
        for version in ("v1", "v1alpha"):
            yield f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo", asked
