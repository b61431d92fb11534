"""UploadLogSnapshot with SNAPSHOT_FORMAT_ENTRIES."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import types_pb2 as types
from tests.services.test_uploads import GOOD, conversation, stored
from tests.support.fixtures.agent_stream import ScriptedAgent
from tests.support.fixtures.authenticated import bearing
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.server import Server

CODE = grpc.StatusCode
MIB = 1024 * 1024


def entry(id_: int | None, content: str = "hello", **changed: Any) -> types.TaskLogEntry:
    fields: dict[str, Any] = {
        "id": id_,
        "type": types.TASK_LOG_TYPE_OUTPUT,
        "time": Timestamp(seconds=1_700_000_000 + (id_ or 0), nanos=123_456_789),
        "content": content,
    }
    return types.TaskLogEntry(**fields | changed)


async def upload(
    server: Server, token: str, *entries: types.TaskLogEntry, **fields: Any
) -> pb.UploadLogSnapshotResponse:
    given: dict[str, Any] = {"format": pb.SNAPSHOT_FORMAT_ENTRIES, "entries": entries}
    request = pb.UploadLogSnapshotRequest(**given | fields)
    return await server.agents.UploadLogSnapshot(request, metadata=bearing(token))


async def test_entries_are_stored_unchanged(server: Server) -> None:
    token = (await server.create_task()).agent_token

    uploaded = await upload(
        server,
        token,
        entry(0, "\0 hi", type=types.TASK_LOG_TYPE_INPUT),
        entry(7, "x" * MIB, dropped_bytes=131_072),
    )

    (first, second), epoch = await stored(server)
    assert (epoch, first.id, first.content) == (1, 0, "\0 hi")
    assert first.type == types.TASK_LOG_TYPE_INPUT
    assert first.time.nanos == 123_456_789
    assert (second.id, len(second.content), second.dropped_bytes) == (7, MIB, 131_072)
    assert uploaded.revision == second.revision
    assert uploaded.HasField("snapshot_at")


async def test_the_rules_of_epochs_are_those_of_the_other_format(server: Server) -> None:
    token = (await server.create_task()).agent_token
    first = await upload(server, token, entry(0), entry(1))

    assert (await upload(server, token, entry(0), entry(1))).revision == first.revision
    assert (await upload(server, token, entry(0))).revision == first.revision
    assert (await upload(server, token)).revision == first.revision
    more = await upload(server, token, entry(0), entry(1), entry(2))
    assert more.revision == first.revision + 2  # the tail was sent again, with its successor
    await upload(server, token, entry(0, "another"))

    (only,), epoch = await stored(server)
    assert (only.content, epoch) == ("another", 2)


BAD: dict[str, tuple[types.TaskLogEntry, str]] = {
    "no id": (entry(None), "id"),
    "a negative id": (entry(-1), "id"),
    "an id again": (entry(4), "id"),
    "a lower id": (entry(3), "id"),
    "no type": (entry(5, type=types.TASK_LOG_TYPE_UNSPECIFIED), "type"),
    "no time": (entry(5, time=None), "time"),
    "a time past the year 9999": (entry(5, time=Timestamp(seconds=253_402_300_800)), "time"),
    "negative dropped bytes": (entry(5, dropped_bytes=-1), "dropped_bytes"),
}


@pytest.mark.parametrize(("bad", "field"), BAD.values(), ids=BAD)
async def test_a_bad_entry_is_named_and_nothing_is_stored(
    server: Server, bad: types.TaskLogEntry, field: str
) -> None:
    token = (await server.create_task()).agent_token

    refusal = await refused(upload(server, token, entry(0), entry(2), entry(4), bad, entry(9)))

    assert refusal.code is CODE.INVALID_ARGUMENT
    assert refusal.fields == [f"entries[3].{field}"]
    assert await stored(server) == ([], 0)


async def test_an_unknown_type_is_unsupported(server: Server) -> None:
    token = (await server.create_task()).agent_token
    unknown: Any = 99

    refusal = await refused(upload(server, token, entry(0, type=unknown)))

    assert (refusal.code, refusal.reason) == (CODE.INVALID_ARGUMENT, "UNSUPPORTED")
    assert await stored(server) == ([], 0)


async def test_content_past_the_limit_is_refused_because_its_sender_truncates(
    server: Server,
) -> None:
    token = (await server.create_task()).agent_token

    refusal = await refused(upload(server, token, entry(0), entry(1, "x" * (MIB + 1))))

    assert refusal.code is CODE.RESOURCE_EXHAUSTED
    assert "entry 1" in refusal.message
    assert await stored(server) == ([], 0)


async def test_too_many_entries_are_refused_before_they_are_decoded(server: Server) -> None:
    token = (await server.create_task()).agent_token

    refusal = await refused(upload(server, token, *[types.TaskLogEntry()] * 50_001))

    assert refusal.code is CODE.RESOURCE_EXHAUSTED
    assert "50000 entries" in refusal.message


async def test_ten_thousand_bad_entries_get_one_short_refusal(server: Server) -> None:
    token = (await server.create_task()).agent_token

    refusal = await refused(upload(server, token, *[types.TaskLogEntry()] * 10_000))

    assert refusal.fields[0] == "entries[0].id"
    assert len(refusal.fields) < 100


async def test_each_format_refuses_the_field_of_the_other(server: Server) -> None:
    token = (await server.create_task()).agent_token

    both = await refused(upload(server, token, entry(0), data=conversation(GOOD)))
    empty = await refused(upload(server, token, entry(0), data=Struct()))
    of_agentapi = await refused(
        upload(
            server,
            token,
            entry(0),
            data=conversation(GOOD),
            format=pb.SNAPSHOT_FORMAT_AGENTAPI,
        )
    )

    assert both.code is empty.code is of_agentapi.code is CODE.INVALID_ARGUMENT
    assert (both.fields, empty.fields, of_agentapi.fields) == (["data"], ["data"], ["entries"])
    assert await stored(server) == ([], 0)


async def test_an_open_stream_refuses_the_upload(server: Server) -> None:
    token = (await server.create_task()).agent_token

    async with ScriptedAgent.connect(server, token):
        refusal = await refused(upload(server, token, entry(0)))

    assert (refusal.code, refusal.reason) == (CODE.FAILED_PRECONDITION, "SESSION_OPEN")
