"""UploadLogSnapshot: what is accepted, what is refused, and which field is named."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct, Value

from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import task_logs_pb2 as logs_pb
from tasklogs.v1 import tasks_pb2
from tasklogs.v1 import types_pb2 as types
from tests.support.fixtures.agent_stream import ScriptedAgent
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.server import Server

GOOD: Mapping[str, Any] = {
    "id": 0,
    "role": "user",
    "content": "hello",
    "time": "2026-01-02T03:04:05.123456789Z",
}


def upload(
    server: Server, token: str, data: Struct | None, **fields: Any
) -> grpc.aio.UnaryUnaryCall[pb.UploadLogSnapshotRequest, pb.UploadLogSnapshotResponse]:
    request = pb.UploadLogSnapshotRequest(
        **{"format": pb.SNAPSHOT_FORMAT_AGENTAPI, "data": data} | fields
    )
    return server.agents.UploadLogSnapshot(
        request, metadata=(("authorization", f"Bearer {token}"),)
    )


def conversation(*messages: Any) -> Struct:
    data = Struct()
    data.update({"messages": list(messages)})
    return data


async def stored(server: Server) -> tuple[Sequence[types.TaskLogEntry], int]:
    read = await server.logs.GetTaskLogs(
        logs_pb.GetTaskLogsRequest(task="local/demo", source=logs_pb.LOG_SOURCE_SNAPSHOT)
    )
    return read.logs, read.epoch


async def test_a_conversation_is_stored_unchanged(server: Server) -> None:
    token = (await server.create_task()).agent_token
    answer = {"id": 7, "role": "agent", "content": "\0 hi", "time": "2026-01-02T05:04:05+02:00"}

    uploaded = await upload(server, token, conversation(GOOD, answer))

    (first, second), epoch = await stored(server)
    assert epoch == 1
    assert (first.id, first.type, first.content) == (0, types.TASK_LOG_TYPE_INPUT, "hello")
    assert first.time.ToNanoseconds() % 10**9 == 123_456_789
    assert (second.id, second.type, second.content) == (7, types.TASK_LOG_TYPE_OUTPUT, "\0 hi")
    assert second.time.ToJsonString() == "2026-01-02T03:04:05Z"
    assert uploaded.revision == second.revision
    assert uploaded.HasField("snapshot_at")


async def test_a_prefix_changes_nothing_and_another_conversation_opens_an_epoch(
    server: Server,
) -> None:
    token = (await server.create_task()).agent_token
    second = {**GOOD, "id": 1, "role": "agent", "content": "hi"}
    first = await upload(server, token, conversation(GOOD, second))

    assert (await upload(server, token, conversation(GOOD))).revision == first.revision
    assert (await upload(server, token, conversation())).revision == first.revision
    await upload(server, token, conversation({**GOOD, "content": "another"}))

    (only,), epoch = await stored(server)
    assert (only.content, epoch) == ("another", 2)


async def test_a_message_over_1_mib_loses_its_beginning(server: Server) -> None:
    token = (await server.create_task()).agent_token

    await upload(server, token, conversation({**GOOD, "content": "x" * (1024 * 1024 + 1)}))

    (only,), _ = await stored(server)
    assert only.dropped_bytes == 128 * 1024
    assert len(only.content) == 1024 * 1024 + 1 - 128 * 1024


BAD_MESSAGES: list[tuple[Any, list[str]]] = [
    ("text", [""]),
    (None, [""]),
    ([GOOD], [""]),
    ({}, [".id", ".content", ".role", ".time"]),
    ({**GOOD, "id": -1}, [".id"]),
    ({**GOOD, "id": 0.5}, [".id"]),
    ({**GOOD, "id": 2**31}, [".id"]),
    ({**GOOD, "id": 1e300}, [".id"]),
    ({**GOOD, "id": math.nan}, [".id"]),
    ({**GOOD, "id": math.inf}, [".id"]),
    ({**GOOD, "id": True}, [".id"]),
    ({**GOOD, "id": "0"}, [".id"]),
    ({**GOOD, "content": None}, [".content"]),
    ({**GOOD, "content": ["x"]}, [".content"]),
    ({**GOOD, "role": "system"}, [".role"]),
    ({**GOOD, "role": ""}, [".role"]),
    ({**GOOD, "role": ["user"]}, [".role"]),
    ({**GOOD, "role": {"user": 1}}, [".role"]),
    ({**GOOD, "time": "yesterday"}, [".time"]),
    ({**GOOD, "time": "2026-13-01T00:00:00Z"}, [".time"]),
    ({**GOOD, "time": "2026-01-01T00:00:00"}, [".time"]),
    ({**GOOD, "time": "0000-01-01T00:00:00Z"}, [".time"]),
    ({**GOOD, "time": "9999-12-31T23:59:59-23:59"}, [".time"]),
    ({**GOOD, "time": "0001-01-01T00:00:00+23:59"}, [".time"]),
    ({**GOOD, "time": "2026-01-01T00:00:00." + "1" * 100_000 + "Z"}, [".time"]),
    ({**GOOD, "time": 1767225600}, [".time"]),
]


@pytest.mark.parametrize(("message", "named"), BAD_MESSAGES, ids=lambda one: repr(one)[-50:])
async def test_a_message_that_does_not_fit_is_named_and_nothing_is_stored(
    server: Server, message: Any, named: list[str]
) -> None:
    token = (await server.create_task()).agent_token

    refusal = await refused(upload(server, token, conversation(message)))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == [f"data.messages[0]{field}" for field in named]
    assert await stored(server) == ([], 0)


@pytest.mark.parametrize("ids", [(0, 0), (1, 0), (0, 2, 1)])
async def test_ids_that_do_not_grow_are_refused_and_named(
    server: Server, ids: Sequence[int]
) -> None:
    token = (await server.create_task()).agent_token
    messages = [{**GOOD, "id": id_} for id_ in ids]

    refusal = await refused(upload(server, token, conversation(*messages)))

    assert refusal.fields == [f"data.messages[{len(ids) - 1}].id"]
    assert await stored(server) == ([], 0)


@pytest.mark.parametrize(
    "data",
    [
        None,
        Struct(),
        Struct(fields={"messages": Value(string_value="x")}),
        Struct(fields={"messages": Value()}),
        Struct(fields={"messages": Value(number_value=math.nan)}),
        Struct(fields={"messages": Value(struct_value=Struct())}),
    ],
    ids=["unset", "empty", "text", "nothing", "nan", "struct"],
)
async def test_data_without_a_list_of_messages_is_refused(
    server: Server, data: Struct | None
) -> None:
    token = (await server.create_task()).agent_token

    refusal = await refused(upload(server, token, data))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == ["data.messages"]


@pytest.mark.parametrize("format_", [pb.SNAPSHOT_FORMAT_UNSPECIFIED, 99])
async def test_an_unknown_format_is_refused(server: Server, format_: Any) -> None:
    token = (await server.create_task()).agent_token

    refusal = await refused(upload(server, token, conversation(GOOD), format=format_))

    assert refusal.fields == ["format"]


async def test_data_nested_5000_deep_is_an_invalid_argument(server: Server) -> None:
    token = (await server.create_task()).agent_token
    nested = _field(3, b"x")
    for _ in range(5000):
        nested = _field(6, _field(1, nested))
    data = _field(1, _field(1, b"messages") + _field(2, nested))
    raw: Any = server.channel

    refusal = await refused(
        raw.unary_unary("/tasklogs.v1.TaskAgents/UploadLogSnapshot")(
            b"\x08\x01" + _field(2, data), metadata=(("authorization", f"Bearer {token}"),)
        )
    )

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_ten_thousand_bad_messages_get_one_short_refusal(server: Server) -> None:
    token = (await server.create_task()).agent_token

    refusal = await refused(upload(server, token, conversation(*[{}] * 10_000)))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields[0] == "data.messages[0].id"
    assert len(refusal.fields) < 100


async def test_an_upload_beside_an_open_stream_is_refused(server: Server) -> None:
    token = (await server.create_task()).agent_token

    async with ScriptedAgent.connect(server, token):
        refusal = await refused(upload(server, token, conversation(GOOD)))

    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.reason == "SESSION_OPEN"
    assert await stored(server) == ([], 0)


async def test_credentials_are_checked_before_the_data(server: Server) -> None:
    created = await server.create_task()
    other = await server.create_task("other")
    await server.tasks.DeleteTask(tasks_pb2.DeleteTaskRequest(task="local/other"))
    made_up = created.agent_token[:-1] + ("A" if created.agent_token[-1] != "A" else "B")
    secret = created.agent_token.rpartition("_")[2]
    crossed = f"tla_{other.task.id.replace('-', '')}_{secret}"

    for token in ("", "x", "tla_", made_up, crossed, other.agent_token, "tla_" + "z" * 32 + "_x"):
        refusal = await refused(upload(server, token, None))
        assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
        assert token == "" or token not in refusal.message

    bare = await refused(server.agents.UploadLogSnapshot(pb.UploadLogSnapshotRequest()))
    basic = await refused(
        server.agents.UploadLogSnapshot(
            pb.UploadLogSnapshotRequest(), metadata=(("authorization", "Basic eDp5"),)
        )
    )
    assert bare.code is basic.code is grpc.StatusCode.UNAUTHENTICATED
    assert await stored(server) == ([], 0)


def _field(number: int, payload: bytes) -> bytes:
    """Encode a length-delimited field."""
    size, length = len(payload), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes([number << 3 | 2]) + bytes(length) + payload
