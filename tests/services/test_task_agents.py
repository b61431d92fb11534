"""The agent stream: credentials, the first message, appends that break the rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from tasklogs.errors import TaskLogsRpcError
from tasklogs.log import digest
from tasklogs.log.delta import Delta, Piece
from tasklogs.log.entry import Entry, EntryType, Names, Time
from tasklogs.publish.stream_status import StreamCall
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import task_logs_pb2 as logs_pb
from tasklogs.v1 import types_pb2 as types
from tasklogs_server.services import task_agents
from tests.log.vectors import delta_of, delta_vectors
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry, tail_delta, tail_pieces
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.content_deltas import content_delta
from tests.support.fixtures.refusals import refused, refused_stream
from tests.support.fixtures.reports import TASK, get_task, report_build
from tests.support.fixtures.server import Server

MIB = 1024 * 1024


async def test_a_stream_without_the_tasks_own_token_is_refused(server: Server) -> None:
    token = (await server.create_task()).agent_token

    for bad in ("", "x", token[:-2], f"{token}x", "Bearer"):
        with pytest.raises(TaskLogsRpcError) as error:
            async with ScriptedAgent.connect(server, bad):
                pass
        assert error.value.code is grpc.StatusCode.UNAUTHENTICATED
    assert not (await get_task(server)).agent_connected


async def test_a_stream_without_credentials_is_refused_before_its_first_message(
    server: Server,
) -> None:
    refusal = await refused(server.agents.Connect().read())

    assert refusal.code is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    "first",
    [
        pb.AgentMessage(),
        pb.AgentMessage(append=pb.LogAppend(sequence=1, open_epoch=True)),
        pb.AgentMessage(goodbye=pb.Goodbye()),
        pb.AgentMessage(sync_done=pb.SyncDone(id=1)),
    ],
    ids=["nothing", "append", "goodbye", "sync_done"],
)
async def test_the_first_message_must_be_hello(server: Server, first: pb.AgentMessage) -> None:
    async with _raw(server) as call:
        refusal = await refused_stream(call, first)

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason == "PROTOCOL_VIOLATION"
    assert "Hello" in refusal.message
    assert not (await get_task(server)).agent_connected


async def test_a_stream_without_messages_is_closed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_agents, "_HELLO_TIMEOUT_SECONDS", 0.05)

    async with _raw(server) as call:
        refusal = await refused(call.read())

    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "PROTOCOL_VIOLATION",
    )


async def test_a_stream_that_is_closed_at_once_is_refused(server: Server) -> None:
    async with _raw(server) as call:
        await call.done_writing()
        refusal = await refused(call.read())

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("number", [0, -1])
async def test_a_hello_with_an_invalid_build_number_names_the_field(
    server: Server, number: int
) -> None:
    async with _raw(server) as call:
        hello = pb.AgentMessage(hello=pb.Hello(build_number=number))
        refusal = await refused_stream(call, hello)

    assert refusal.fields == ["hello.build_number"]


async def test_an_agent_of_an_older_build_is_refused(server: Server) -> None:
    token = (await server.create_task()).agent_token
    await report_build(server, 2)

    with pytest.raises(TaskLogsRpcError) as error:
        async with ScriptedAgent.connect(server, token, build_number=1):
            pass

    assert error.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert error.value.reason == "STALE_REPORT"


async def test_bytes_that_are_not_a_message_end_the_stream(server: Server) -> None:
    raw: Any = server.channel
    token = (await server.create_task()).agent_token
    call = raw.stream_stream("/tasklogs.v1.TaskAgents/Connect")(
        metadata=(("authorization", f"Bearer {token}"),)
    )

    refusal = await refused_stream(StreamCall(call), b"\xff\xff\xff")

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == ["request"]


async def test_a_message_over_4_mib_ends_the_stream(server: Server) -> None:
    async with _agent(server) as agent:
        await agent.append(open_epoch=True, entries=[log_entry(n, "x" * MIB) for n in range(4)])
        ended = await agent.ended()

    assert ended.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await _stored(server) == []


UNSPECIFIED: Any = types.TASK_LOG_TYPE_UNSPECIFIED
UNKNOWN: Any = 99


def entry(**changed: Any) -> types.TaskLogEntry:
    made: Any = log_entry(2, "new")
    for name, value in changed.items():
        if value is None:
            made.ClearField(name)
        else:
            setattr(made, name, value)
    entry_: types.TaskLogEntry = made
    return entry_


def without_a_time(delta: pb.TailDelta) -> pb.TailDelta:
    delta.ClearField("time")
    return delta


def ill_timed(seconds: int, nanos: int = 0) -> types.TaskLogEntry:
    return log_entry(2, "new", seconds=seconds, nanos=nanos)


# Each is sent to a log with the entries 0 ("sealed") and 1 ("tail"), after append number 1.
VIOLATIONS: dict[str, pb.LogAppend] = {
    "a number is left out": pb.LogAppend(sequence=3, entries=[entry()]),
    "a number comes again": pb.LogAppend(sequence=1, entries=[entry()]),
    "no number": pb.LogAppend(entries=[entry()]),
    "a negative number": pb.LogAppend(sequence=-1, entries=[entry()]),
    "a sealed entry": pb.LogAppend(sequence=2, entries=[log_entry(0, "changed")]),
    "ids that fall": pb.LogAppend(sequence=2, entries=[log_entry(3, ""), log_entry(2, "")]),
    "the tail changes its type": pb.LogAppend(
        sequence=2, entries=[log_entry(1, "tail", type_=types.TASK_LOG_TYPE_INPUT)]
    ),
    "growth of a sealed entry": pb.LogAppend(sequence=2, tail=tail_delta(0, 0, "x")),
    "growth of an entry that is not there": pb.LogAppend(sequence=2, tail=tail_delta(2, 0, "x")),
    "more kept than there is": pb.LogAppend(sequence=2, tail=tail_delta(1, 5, "x")),
    "less than nothing kept": pb.LogAppend(sequence=2, tail=tail_delta(1, -1, "x")),
    "a second withdrawal": pb.LogAppend(sequence=2, withdraw_tail=True, tail=tail_delta(1, 0, "x")),
}

BAD_FIELDS: dict[str, tuple[pb.LogAppend, str]] = {
    "no id": (pb.LogAppend(sequence=2, entries=[entry(id=None)]), "append.entries.id"),
    "a long source_id": (
        pb.LogAppend(sequence=2, entries=[entry(source_id="x" * 256)]),
        "append.entries.source_id",
    ),
    "a long name": (
        pb.LogAppend(sequence=2, entries=[entry(name="é" * 128)]),
        "append.entries.name",
    ),
    "a long call_id": (
        pb.LogAppend(sequence=2, entries=[entry(call_id="x" * 256)]),
        "append.entries.call_id",
    ),
    "a negative id": (pb.LogAppend(sequence=2, entries=[entry(id=-1)]), "append.entries.id"),
    "no type": (pb.LogAppend(sequence=2, entries=[entry(type=UNSPECIFIED)]), "append.entries.type"),
    "negative dropped bytes": (
        pb.LogAppend(sequence=2, entries=[entry(dropped_bytes=-1)]),
        "append.entries.dropped_bytes",
    ),
    "a time past 9999": (
        pb.LogAppend(sequence=2, entries=[ill_timed(253_402_300_800)]),
        "append.entries.time",
    ),
    "negative nanoseconds": (
        pb.LogAppend(sequence=2, entries=[ill_timed(0, -1)]),
        "append.entries.time",
    ),
    "no time": (pb.LogAppend(sequence=2, entries=[entry(time=None)]), "append.entries.time"),
    "a tail without a time": (
        pb.LogAppend(
            sequence=2,
            tail=pb.TailDelta(id=1, content=content_delta("tail", Delta.keeping(4, b"!"))),
        ),
        "append.tail.time",
    ),
    "a change of the tail without a checksum": (
        pb.LogAppend(sequence=2, tail=tail_delta(1, 4, "!")),
        "append.tail.content.crc32: is required",
    ),
    "a change of the tail without pieces": (
        pb.LogAppend(sequence=2, tail=tail_pieces(1, Delta(()), crc32=0)),
        "append.tail.content.pieces",
    ),
    "a change of the tail of too many pieces": (
        pb.LogAppend(sequence=2, tail=tail_pieces(1, Delta((Piece(0, 0),) * 4097), crc32=0)),
        "append.tail.content.pieces",
    ),
}


def _of_tomorrow() -> pb.TailDelta:
    """A change of the tail whose form this server does not know: field 15 of the oneof."""
    change = pb.TailDelta(id=1)
    change.time.seconds = 1_700_000_001
    change.MergeFromString(b"\x7a\x05later")
    return change


UNKNOWN_FORMS: dict[str, pb.LogAppend] = {
    "a later form": pb.LogAppend(sequence=2, tail=_of_tomorrow()),
    "no form": pb.LogAppend(sequence=2, tail=pb.TailDelta(id=1, time=_of_tomorrow().time)),
    "a later form, and entries": pb.LogAppend(
        sequence=2, tail=_of_tomorrow(), entries=[log_entry(2, "new")]
    ),
    "a later form after a new epoch": pb.LogAppend(
        sequence=2, open_epoch=True, tail=_of_tomorrow()
    ),
}


@pytest.mark.parametrize("append", UNKNOWN_FORMS.values(), ids=UNKNOWN_FORMS.keys())
async def test_a_change_of_the_tail_in_an_unknown_form_is_refused_and_stores_nothing(
    server: Server, append: pb.LogAppend
) -> None:
    async with _agent(server) as agent:
        await _begin(agent)
        await agent.send_as_it_is(pb.AgentMessage(append=append))
        ended = await agent.ended()
    assert (ended.code, ended.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNSUPPORTED")
    assert agent.acks == [1]
    assert await _stored(server) == ["sealed", "tail"]


async def test_a_change_of_another_base_is_refused_and_the_next_stream_starts_from_welcome(
    server: Server,
) -> None:
    token = (await server.create_task()).agent_token
    async with ScriptedAgent.connect(server, token) as agent:
        await _begin(agent)
        agent.tail = b"TAIL"  # what this agent believes to be stored
        await agent.append(tail=tail_delta(1, 4, "!"), entries=[log_entry(2, "new")])
        ended = await agent.ended()
    assert (ended.code, ended.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PROTOCOL_VIOLATION")
    assert agent.acks == [1]
    assert await _stored(server) == ["sealed", "tail"]
    async with ScriptedAgent.connect(server, token) as agent:
        assert agent.welcome.tail.content_bytes == 4
        agent.tail = b"tail"
        await agent.append(tail=tail_delta(1, 4, "!"), entries=[log_entry(2, "new")])
        await agent.acked()
    assert await _stored(server) == ["sealed", "tail!", "new"]


async def test_the_vectors_of_changes_are_stored(server: Server) -> None:
    async with _agent(server) as agent:
        for vector in delta_vectors()["applied"]:
            await agent.append(open_epoch=True, entries=[log_entry(0, vector["base"])])
            await agent.append(tail=tail_pieces(0, delta_of(vector), crc32=vector["crc32"]))
            await agent.acked()
            assert await _stored(server) == [vector["result"]], vector["why"]


async def test_repeated_ranges_cannot_fill_the_servers_memory(server: Server) -> None:
    """4096 pieces of 1 MiB: the message has 40 KB, the result would have 4 GiB."""
    async with _agent(server) as agent:
        await agent.append(open_epoch=True, entries=[log_entry(0, "x" * MIB)])
        await agent.acked()
        bomb = Delta((Piece(0, MIB),) * 4096)
        await agent.append(tail=tail_pieces(0, bomb, crc32=0))
        ended = await agent.ended()
    assert ended.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert [len(one) for one in await _stored(server)] == [MIB]


@pytest.mark.parametrize("append", VIOLATIONS.values(), ids=VIOLATIONS.keys())
async def test_an_append_that_breaks_the_rules_ends_the_stream_and_stores_nothing(
    server: Server, append: pb.LogAppend
) -> None:
    async with _agent(server) as agent:
        await _begin(agent)

        await agent.send(pb.AgentMessage(append=append))
        ended = await agent.ended()

    assert (ended.code, ended.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "PROTOCOL_VIOLATION",
    )
    assert await _stored(server) == ["sealed", "tail"]


@pytest.mark.parametrize(("append", "field"), BAD_FIELDS.values(), ids=BAD_FIELDS.keys())
async def test_an_append_with_a_bad_field_ends_the_stream_by_its_name_and_stores_nothing(
    server: Server, append: pb.LogAppend, field: str
) -> None:
    async with _agent(server) as agent:
        await _begin(agent)

        await agent.send_as_it_is(pb.AgentMessage(append=append))
        ended = await agent.ended()

    assert ended.code is grpc.StatusCode.INVALID_ARGUMENT
    assert field in ended.message
    assert await _stored(server) == ["sealed", "tail"]


@pytest.mark.parametrize(
    "append",
    [
        lambda: pb.LogAppend(sequence=2, entries=[log_entry(2, "x" * (MIB + 1))]),
        lambda: pb.LogAppend(sequence=2, entries=[log_entry(1, "\u00e9" * (MIB // 2 + 1))]),
        lambda: pb.LogAppend(sequence=2, tail=tail_delta(1, 4, "x" * MIB)),
    ],
    ids=["a new one", "the tail anew", "the tail grown"],
)
async def test_an_entry_over_1_mib_is_refused(
    server: Server, append: Callable[[], pb.LogAppend]
) -> None:
    async with _agent(server) as agent:
        await _begin(agent)

        await agent.send(pb.AgentMessage(append=append()))
        ended = await agent.ended()

    assert ended.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await _stored(server) == ["sealed", "tail"]


async def test_an_entry_of_1_mib_is_accepted(server: Server) -> None:
    async with _agent(server) as agent:
        await agent.append(open_epoch=True, entries=[log_entry(0, "x" * MIB)])
        await agent.acked()

    assert [len(one) for one in await _stored(server)] == [MIB]


async def test_entries_before_the_first_epoch_break_the_rules(server: Server) -> None:
    async with _agent(server) as agent:
        await agent.append(entries=[log_entry(0, "x")])
        ended = await agent.ended()

    assert ended.reason == "PROTOCOL_VIOLATION"
    assert await _stored(server) == []


async def test_a_second_hello_is_a_violation(server: Server) -> None:
    async with _agent(server) as agent:
        await agent.send(pb.AgentMessage(hello=pb.Hello()))
        ended = await agent.ended()

    assert (ended.code, ended.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "PROTOCOL_VIOLATION",
    )


async def test_an_unknown_state_value_names_its_field(server: Server) -> None:
    async with _agent(server) as agent:
        await agent.report(UNKNOWN, UNKNOWN)
        ended = await agent.ended()

    assert ended.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "state.lifecycle" in ended.message
    assert "state.app_health" in ended.message


# Field 31, with a message in it.
LATER = b"\xfa\x01\x02\x08\x01"
SECOND = pb.LogAppend(sequence=2).SerializeToString()
# Each is sent to a log with the entries 0 ("sealed") and 1 ("tail"), after append number 1.
UNSUPPORTED: dict[str, tuple[pb.AgentMessage, str]] = {
    "a message without a case": (pb.AgentMessage(), "messages"),
    "a message with an unknown case": (pb.AgentMessage.FromString(LATER), "messages"),
    "an append without a part": (pb.AgentMessage(append=pb.LogAppend(sequence=2)), "appends"),
    "an append with only an unknown part": (
        pb.AgentMessage(append=pb.LogAppend.FromString(SECOND + LATER)),
        "appends",
    ),
    "an append that only waited": (
        pb.AgentMessage(append=pb.LogAppend(sequence=2, waited_ms=7)),
        "appends",
    ),
    "an entry of an unknown type": (
        pb.AgentMessage(
            append=pb.LogAppend(
                sequence=2, tail=tail_delta(1, 4, "!"), entries=[entry(), entry(id=3, type=UNKNOWN)]
            )
        ),
        "entries of type 99",
    ),
}


@pytest.mark.parametrize(("message", "what"), UNSUPPORTED.values(), ids=UNSUPPORTED.keys())
async def test_what_the_server_does_not_know_ends_the_stream_and_nothing_of_it_is_stored(
    server: Server, message: pb.AgentMessage, what: str
) -> None:
    async with _agent(server) as agent:
        await _begin(agent)

        with capture_logs() as logged:
            await agent.send(message)
            ended = await agent.ended()

    assert (ended.code, ended.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNSUPPORTED")
    assert ended.message.startswith(f"this server does not support {what}")
    assert await _stored(server) == ["sealed", "tail"]
    assert agent.acks == [1]
    (line,) = [one for one in logged if one["event"] == "agent_message.refused"]
    assert line["unsupported"] in ended.message


async def test_an_unknown_field_of_a_known_message_is_dropped(server: Server) -> None:
    """A later agent may tell more than this server knows."""
    async with _agent(server) as agent:
        opening = pb.LogAppend(sequence=1, open_epoch=True, entries=[log_entry(0, "x")])
        later = pb.LogAppend.FromString(opening.SerializeToString() + LATER)
        await agent.send(pb.AgentMessage(append=later))
        await agent.acked(1)

    assert await _stored(server) == ["x"]


async def test_entries_keep_their_names_and_types_everywhere(server: Server) -> None:
    token = (await server.create_task()).agent_token
    call = named(0, types.TASK_LOG_TYPE_TOOL_CALL, "", "bash", "c1\0")
    result = named(1, types.TASK_LOG_TYPE_TOOL_RESULT, "m" * 255, "é", "c1\0")
    followed = server.logs.FollowTaskLogs(logs_pb.FollowTaskLogsRequest(task=TASK))
    try:
        async with ScriptedAgent.connect(server, token) as agent:
            await agent.append(open_epoch=True, entries=[call])
            await agent.append(tail=tail_delta(0, 0, "{}"))
            await agent.acked()
            await _check_named(server, [call])
            await agent.append(entries=[result])
            await agent.append(tail=tail_delta(1, 0, "done"))
            await agent.acked()
        seen = await _followed(followed, "done")
    finally:
        followed.cancel()
    await _check_named(server, [call, result])
    assert _names_of(seen.values()) == _names_of([call, result])

    async with ScriptedAgent.connect(server, token) as agent:
        welcome = agent.welcome
        assert _names_of([welcome.tail]) == _names_of([result])
        time = Time(call.time.seconds, 0)
        sealed = Entry(0, EntryType.TOOL_CALL, time, b"{}", names=Names("", "bash", "c1\0"))
        assert welcome.digest == digest.seal_all([sealed])


async def test_a_tail_with_other_names_is_another_entry(server: Server) -> None:
    async with _agent(server) as agent:
        await agent.append(open_epoch=True, entries=[log_entry(0, "x")])
        await agent.acked()
        await agent.append(entries=[named(0, types.TASK_LOG_TYPE_OUTPUT, "m", "", "")])
        ended = await agent.ended()

    assert ended.reason == "PROTOCOL_VIOLATION"
    assert await _stored(server) == ["x"]


def named(
    id_: int, type_: types.TaskLogType.ValueType, source_id: str, name: str, call_id: str
) -> types.TaskLogEntry:
    made = log_entry(id_, "", type_=type_)
    made.source_id, made.name, made.call_id = source_id, name, call_id
    return made


def _names_of(entries: Iterable[Any]) -> list[tuple[int, str, str, str]]:
    return [(one.type, one.source_id, one.name, one.call_id) for one in entries]


async def _check_named(server: Server, entries: list[types.TaskLogEntry]) -> None:
    read = await server.logs.GetTaskLogs(
        logs_pb.GetTaskLogsRequest(task=TASK, source=logs_pb.LOG_SOURCE_SNAPSHOT)
    )
    assert _names_of(read.logs) == _names_of(entries)


async def _followed(call: Any, last_content: str) -> dict[int, types.TaskLogEntry]:
    """Read whole entries until one has this content; return the last state of each."""
    seen: dict[int, types.TaskLogEntry] = {}
    async with asyncio.timeout(DEADLINE_SECONDS):
        async for message in call:
            for one in message.entries.logs:
                seen[one.id] = one
                if one.content == last_content:
                    return seen
    raise AssertionError("the follow ended")


async def test_what_was_appended_before_the_violation_is_stored(server: Server) -> None:
    async with _agent(server) as agent:
        await _begin(agent)
        await agent.append(entries=[log_entry(2, "fine")])
        await agent.acked()
        await agent.append(entries=[log_entry(0, "not fine")])
        await agent.ended()

    assert await _stored(server) == ["sealed", "tail", "fine"]


async def test_more_than_60_new_epochs_an_hour_are_refused(server: Server) -> None:
    async with _agent(server) as agent:
        for number in range(60):
            await agent.append(open_epoch=True, entries=[log_entry(0, str(number))])
            await agent.acked()
        await agent.append(open_epoch=True, entries=[log_entry(0, "one too many")])
        ended = await agent.ended()

    assert ended.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await _stored(server) == ["59"]


async def _begin(agent: ScriptedAgent) -> None:
    await agent.append(open_epoch=True, entries=[log_entry(0, "sealed"), log_entry(1, "tail")])
    await agent.acked()


@asynccontextmanager
async def _agent(server: Server) -> AsyncIterator[ScriptedAgent]:
    token = (await server.create_task()).agent_token
    async with ScriptedAgent.connect(server, token) as agent:
        yield agent


@asynccontextmanager
async def _raw(server: Server) -> AsyncIterator[StreamCall]:
    """A stream that has sent nothing yet."""
    token = (await server.create_task()).agent_token
    call = StreamCall(server.agents.Connect(metadata=(("authorization", f"Bearer {token}"),)))
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            yield call
    finally:
        call.cancel()


async def _stored(server: Server) -> list[str]:
    read = await server.logs.GetTaskLogs(
        logs_pb.GetTaskLogsRequest(task=TASK, source=logs_pb.LOG_SOURCE_SNAPSHOT)
    )
    return [one.content for one in read.logs]
