"""An agent of tomorrow at our server: unknown parts are refused, and acks cover what is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import task_logs_pb2, tasks_pb2, types_pb2
from tests.compat import tomorrow
from tests.compat.agent_peer import AgentOfTomorrow, conversation, stored
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry, tail_delta
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.server import Server

TIME = {"seconds": 1_700_000_000}
THING = {"text": "new"}


@pytest.fixture
async def agent(server: Server) -> AsyncIterator[AgentOfTomorrow]:
    """An agent that has stored a conversation of two entries."""
    made = await server.create_task(standalone=True)
    async with AgentOfTomorrow.connect(server, made.agent_token) as agent:
        await agent.append(conversation("hello", "wor"))
        await agent.until_acked(1)
        yield agent


async def refused_and_unchanged(server: Server, agent: AgentOfTomorrow) -> None:
    """The stream ends with UNSUPPORTED; nothing was acked or changed since the fixture."""
    ended = await agent.ended()
    assert (ended.code, ended.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNSUPPORTED")
    assert agent.acked == 1
    assert await stored(server) == ["hello", "wor"]


async def test_the_welcome_names_what_the_server_knows_and_no_more(
    server: Server, agent: AgentOfTomorrow
) -> None:
    features = agent.welcome.features
    assert {"content_delta_pieces", "entry_names", "compressed_messages"} <= set(features)
    assert "a_feature_of_tomorrow" not in features
    assert list(agent.welcome.entry_types) == [
        types_pb2.TASK_LOG_TYPE_INPUT,
        types_pb2.TASK_LOG_TYPE_OUTPUT,
        types_pb2.TASK_LOG_TYPE_TOOL_CALL,
        types_pb2.TASK_LOG_TYPE_TOOL_RESULT,
        types_pb2.TASK_LOG_TYPE_THOUGHT,
        types_pb2.TASK_LOG_TYPE_NOTICE,
    ]


async def test_an_unknown_message_is_refused_and_earlier_appends_stay(
    server: Server, agent: AgentOfTomorrow
) -> None:
    await agent.send(whisper=THING)
    await refused_and_unchanged(server, agent)


@pytest.mark.parametrize("case", [{"whisper": THING}, {}], ids=["an unknown one", "no case"])
async def test_an_unknown_message_is_refused_also_if_it_was_compressed(
    server: Server, agent: AgentOfTomorrow, case: dict[str, Any]
) -> None:
    await agent.send_compressed(**case)
    await refused_and_unchanged(server, agent)


async def test_a_message_with_no_case_is_refused(server: Server, agent: AgentOfTomorrow) -> None:
    await agent.send()
    await refused_and_unchanged(server, agent)


@pytest.mark.parametrize(
    "parts",
    [{"attachments": THING}, {"tomorrow": "new"}, {}, {"attachments": THING, "waited_ms": 5}],
    ids=["an unknown part", "an unknown field", "nothing", "an unknown part and a wait"],
)
async def test_an_append_without_a_known_part_is_refused(
    server: Server, agent: AgentOfTomorrow, parts: dict[str, Any]
) -> None:
    await agent.send(append=tomorrow.make("LogAppend", sequence=2, **parts))
    await refused_and_unchanged(server, agent)


@pytest.mark.parametrize("form", [{"lines": THING}, {}], ids=["an unknown form", "no form"])
async def test_a_delta_of_an_unknown_form_is_refused_and_does_not_empty_the_tail(
    server: Server, agent: AgentOfTomorrow, form: dict[str, Any]
) -> None:
    tail = tomorrow.make("TailDelta", id=1, time=TIME, **form)
    await agent.send(append=tomorrow.make("LogAppend", sequence=2, tail=tail))
    await refused_and_unchanged(server, agent)


async def test_a_delta_without_pieces_is_refused_and_does_not_empty_the_tail(
    server: Server, agent: AgentOfTomorrow
) -> None:
    tail = tomorrow.make("TailDelta", id=1, time=TIME, content={"tomorrow": "new"})
    await agent.send(append=tomorrow.make("LogAppend", sequence=2, tail=tail))
    ended = await agent.ended()
    assert ended.code is grpc.StatusCode.INVALID_ARGUMENT
    assert agent.acked == 1
    assert await stored(server) == ["hello", "wor"]


@pytest.mark.parametrize("type_", [7, tomorrow.NEW_NUMBER])
@pytest.mark.parametrize("before", [0, 1], ids=["first", "after a known entry"])
async def test_an_entry_of_an_unknown_type_is_refused_with_all_of_its_append(
    server: Server, agent: AgentOfTomorrow, type_: int, before: int
) -> None:
    entries = [log_entry(2 + number, "known") for number in range(before)]
    unknown = log_entry(2 + before, "unknown")
    unknown.type = types_pb2.TaskLogType.ValueType(type_)
    await agent.append(pb.LogAppend(sequence=2, entries=[*entries, unknown]))
    await refused_and_unchanged(server, agent)


async def test_unknown_fields_inside_known_parts_hinder_nothing(
    server: Server, agent: AgentOfTomorrow
) -> None:
    delta = tail_delta(1, 3, "ld", seconds=1_700_000_001)
    delta.content.crc32 = 0x3A771143  # of "world"
    await agent.append(pb.LogAppend(sequence=2, tail=delta, entries=[log_entry(2, "next")]))
    await agent.append(pb.LogAppend(sequence=3, withdraw_tail=True))
    other = pb.LogAppend(sequence=4, entries=[log_entry(3, "other")])
    await agent.send_compressed(append=tomorrow.grown(other))
    await agent.until_acked(4)
    assert await stored(server) == ["hello", "world", "other"]


async def test_the_next_agent_finds_the_log_of_an_agent_of_tomorrow_as_it_was_acked(
    server: Server, agent: AgentOfTomorrow
) -> None:
    await agent.append(pb.LogAppend(sequence=2, entries=[log_entry(2, "next")]))
    await agent.until_acked(2)
    await agent.send(whisper=THING)
    await agent.ended()

    token = (
        await server.tasks.RotateAgentToken(tasks_pb2.RotateAgentTokenRequest(task="local/demo"))
    ).agent_token
    async with ScriptedAgent.connect(server, token) as today:
        assert (today.welcome.epoch, today.welcome.entries) == (1, 3)
        assert today.welcome.tail.content_bytes == len("next")


@pytest.mark.parametrize(
    "state",
    [{"lifecycle": tomorrow.NEW_NUMBER}, {"app_health": tomorrow.NEW_NUMBER}],
    ids=["lifecycle", "health"],
)
async def test_an_unknown_state_is_refused_and_changes_no_fact(
    server: Server, agent: AgentOfTomorrow, state: dict[str, int]
) -> None:
    before = await server.tasks.GetTask(tasks_pb2.GetTaskRequest(task="local/demo"))
    await agent.send(state=tomorrow.make("StateReport", **state))
    ended = await agent.ended()
    after = await server.tasks.GetTask(tasks_pb2.GetTaskRequest(task="local/demo"))

    assert ended.code is grpc.StatusCode.INVALID_ARGUMENT
    assert ended.reason in {"INVALID_FIELDS", "UNSUPPORTED"}
    assert after.status_detail.agent.lifecycle == before.status_detail.agent.lifecycle
    assert after.status_detail.app.health == before.status_detail.app.health


async def test_a_goodbye_with_an_unknown_reason_ends_the_stream_after_the_last_commit(
    server: Server, agent: AgentOfTomorrow
) -> None:
    await agent.append(pb.LogAppend(sequence=2, entries=[log_entry(2, "last")]))
    await agent.send(goodbye=tomorrow.make("Goodbye", reason=tomorrow.NEW_NUMBER))
    ended = await agent.ended()

    assert ended.code is grpc.StatusCode.OK
    assert agent.acked == 2
    assert await stored(server) == ["hello", "wor", "last"]


def upload(**fields: Any) -> pb.UploadLogSnapshotRequest:
    """Return an upload of tomorrow."""
    request = tomorrow.make("UploadLogSnapshotRequest", tomorrow="new", **fields)
    return tomorrow.as_today(request, pb.UploadLogSnapshotRequest)


DATA = {
    "messages": [
        {"id": 0, "role": "user", "content": "hello", "time": "2026-11-01T00:00:00Z", "new": 1}
    ],
    "new": True,
}


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (upload(format=tomorrow.NEW_NUMBER, data=DATA), "format"),
        (upload(format=3, data=DATA), "format"),
        (upload(format=tomorrow.NEW_NUMBER, attachments=THING), "format"),
        (upload(attachments=THING), "format"),
    ],
    ids=["unknown format", "the next format", "unknown format and part", "only an unknown part"],
)
async def test_an_upload_of_an_unknown_format_is_refused_and_nothing_is_stored(
    server: Server, request_: pb.UploadLogSnapshotRequest, field: str
) -> None:
    made = await server.create_task()
    refusal = await refused(
        server.agents.UploadLogSnapshot(request_, metadata=bearing(made.agent_token))
    )
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason in {"INVALID_FIELDS", "UNSUPPORTED"}
    assert refusal.fields == [field]
    task = await server.tasks.GetTask(tasks_pb2.GetTaskRequest(task="local/demo"))
    assert task.log.epoch == 0


@pytest.mark.parametrize(
    "make_request",
    [
        lambda: upload(format=pb.SNAPSHOT_FORMAT_AGENTAPI, data=DATA),
        lambda: upload(
            format=pb.SNAPSHOT_FORMAT_ENTRIES,
            entries=[tomorrow.grown(log_entry(0, "hello"))],
        ),
    ],
    ids=["AgentAPI", "entries"],
)
async def test_an_upload_with_unknown_fields_is_stored(
    server: Server, make_request: Callable[[], pb.UploadLogSnapshotRequest]
) -> None:
    made = await server.create_task()
    await server.agents.UploadLogSnapshot(make_request(), metadata=bearing(made.agent_token))
    assert await stored(server) == ["hello"]


@pytest.mark.parametrize("type_", [7, tomorrow.NEW_NUMBER])
async def test_an_upload_with_an_entry_of_an_unknown_type_is_refused(
    server: Server, type_: int
) -> None:
    made = await server.create_task()
    unknown = log_entry(1, "unknown")
    unknown.type = types_pb2.TaskLogType.ValueType(type_)
    request = pb.UploadLogSnapshotRequest(
        format=pb.SNAPSHOT_FORMAT_ENTRIES, entries=[log_entry(0, "known"), unknown]
    )
    metadata = bearing(made.agent_token)
    refusal = await refused(server.agents.UploadLogSnapshot(request, metadata=metadata))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT

    part = pb.UploadLogSnapshotInPartsRequest(entries=request.entries)
    refusal = await refused(in_parts(server, metadata, part))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert await stored(server) == []


async def test_parts_with_unknown_fields_are_stored(server: Server) -> None:
    made = await server.create_task()
    parts = [
        tomorrow.as_today(
            tomorrow.grown(pb.UploadLogSnapshotInPartsRequest(entries=[entry])),
            pb.UploadLogSnapshotInPartsRequest,
        )
        for entry in (log_entry(0, "hello"), log_entry(1, "world"))
    ]
    parts[-1].last = True
    await in_parts(server, bearing(made.agent_token), *parts)
    assert await stored(server) == ["hello", "world"]


async def test_a_part_with_nothing_that_is_known_is_refused_and_nothing_is_stored(
    server: Server,
) -> None:
    made = await server.create_task()
    unknown = tomorrow.as_today(
        tomorrow.make("UploadLogSnapshotInPartsRequest", tomorrow="new"),
        pb.UploadLogSnapshotInPartsRequest,
    )
    known = pb.UploadLogSnapshotInPartsRequest(entries=[log_entry(0, "hello")])
    refusal = await refused(in_parts(server, bearing(made.agent_token), known, unknown))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert await stored(server) == []


async def test_a_follower_of_today_receives_all_that_an_agent_of_tomorrow_has_stored(
    server: Server, agent: AgentOfTomorrow
) -> None:
    await agent.append(pb.LogAppend(sequence=2, entries=[log_entry(2, "next")]))
    await agent.until_acked(2)
    request = task_logs_pb2.FollowTaskLogsRequest(
        task="local/demo", source=task_logs_pb2.LOG_SOURCE_SNAPSHOT, deltas=True
    )
    seen: list[str] = []
    async for message in server.logs.FollowTaskLogs(request):
        seen += [entry.content for entry in message.entries.logs]
        if message.HasField("caught_up"):
            break
    assert seen == ["hello", "wor", "next"]


def bearing(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


async def in_parts(
    server: Server,
    metadata: tuple[tuple[str, str], ...],
    *parts: pb.UploadLogSnapshotInPartsRequest,
) -> pb.UploadLogSnapshotInPartsResponse:
    call = server.agents.UploadLogSnapshotInParts(iter(parts), metadata=metadata)
    return await call
