"""The agent stream: credentials, the first message, appends that break the rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from tasklogs.agent.stream.stream_status import StreamCall
from tasklogs.errors import TaskLogsRpcError
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import task_logs_pb2 as logs_pb
from tasklogs.v1 import types_pb2 as types
from tasklogs_server.services import task_agents
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry, tail_delta
from tests.support.fixtures.conditions import DEADLINE_SECONDS
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
        pb.LogAppend(sequence=2, tail=without_a_time(tail_delta(1, 4, ""))),
        "append.tail.time",
    ),
}


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

        await agent.send(pb.AgentMessage(append=append))
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


async def test_an_unknown_message_of_a_newer_agent_is_ignored(server: Server) -> None:
    async with _agent(server) as agent:
        await agent.send(pb.AgentMessage())
        await agent.append(open_epoch=True, entries=[log_entry(0, "x")])
        await agent.acked()

    assert await _stored(server) == ["x"]


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
