"""A malicious server, or another kind of server: only documented errors, in bounded memory."""

from __future__ import annotations

import asyncio
import itertools
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2

from tasklogs import (
    BuildTransition,
    CaughtUp,
    EntriesChanged,
    JobStatus,
    Reconnected,
    Reconnecting,
    TaskLogsClient,
    errors,
)
from tasklogs.client.assembly import Assembly, WrongDelta
from tasklogs.v1 import task_logs_pb2, tasks_pb2
from tests.client.scripted_server import Refusal
from tests.support.fakes.log_server import (
    ACTIVE,
    HOLD,
    LogServer,
    caught_up,
    delta,
    entries,
    entry,
    log_server,
    status,
)
from tests.support.fixtures.conditions import DEADLINE_SECONDS

MIB = 1024 * 1024
UNDECODABLE = b"\x0a\xff\xff"
NO_SUCH_TIME = Timestamp(seconds=2**62, nanos=-5)
BOMB = bytes(64 * MIB)


@pytest.fixture
async def server() -> AsyncIterator[LogServer]:
    async with log_server() as server:
        yield server


@pytest.fixture
async def client(server: LogServer) -> AsyncIterator[TaskLogsClient]:
    async with TaskLogsClient(server.address) as client:
        yield client


Call = Callable[[TaskLogsClient], Awaitable[object]]


async def _first_task(client: TaskLogsClient) -> object:
    return await anext(client.list_tasks())


CALLS: list[Call] = [
    lambda client: client.get("local/demo"),
    lambda client: client.get_task("local/demo"),
    lambda client: client.create_task("demo"),
    lambda client: client.update_task("local/demo", display_name="x"),
    lambda client: client.delete_task("local/demo"),
    lambda client: client.rotate_agent_token("local/demo"),
    lambda client: client.report_agent("local/demo", 1),
    lambda client: client.report_build("local/demo", 1, BuildTransition.START, JobStatus.RUNNING),
    _first_task,
]


@pytest.mark.parametrize("call", CALLS)
async def test_an_undecodable_response_raises_the_librarys_error(
    server: LogServer, client: TaskLogsClient, call: Call
) -> None:
    server.answers = [UNDECODABLE]
    with pytest.raises(errors.AnswerUnreadable) as raised:
        await call(client)
    assert raised.value.code is grpc.StatusCode.INTERNAL


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_a_response_is_refused_before_it_expands_beyond_the_limit(
    server: LogServer, client: TaskLogsClient, call: Call, compression: grpc.Compression
) -> None:
    server.compression = compression
    server.answers = [BOMB]
    with pytest.raises(errors.LimitExceeded):
        await call(client)


async def test_a_stream_is_refused_before_it_expands_beyond_the_limit(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.compression = grpc.Compression.Gzip
    server.streams = [[status("a", ACTIVE), BOMB, HOLD]]
    with pytest.raises(errors.LimitExceeded):
        async for _ in client.follow("local/demo"):
            pass


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (CALLS[0], task_logs_pb2.GetTaskLogsResponse(snapshot_at=NO_SUCH_TIME)),
        (CALLS[1], tasks_pb2.Task(created_at=NO_SUCH_TIME)),
        (CALLS[1], tasks_pb2.Task(log=tasks_pb2.Task.Log(snapshot_at=NO_SUCH_TIME))),
        (CALLS[2], tasks_pb2.CreateTaskResponse(task=tasks_pb2.Task(created_at=NO_SUCH_TIME))),
    ],
)
async def test_an_impossible_time_raises_the_librarys_error(
    server: LogServer, client: TaskLogsClient, call: Call, answer: Message
) -> None:
    server.answers = [answer]
    with pytest.raises(errors.AnswerUnreadable):
        await call(client)


async def test_a_follow_continues_after_an_undecodable_message(
    server: LogServer, client: TaskLogsClient
) -> None:
    told: list[Reconnecting | Reconnected] = []
    server.streams = [
        [status("a", ACTIVE), entries("b", entry(0, "one", 1)), UNDECODABLE, HOLD],
        [status("b", ACTIVE), entries("c", entry(1, "two", 2)), caught_up("d"), HOLD],
    ]
    seen: list[str] = []
    async for event in client.follow("local/demo", on_reconnect=told.append):
        if isinstance(event, EntriesChanged):
            seen += [each.content for each in event.entries]
        if isinstance(event, CaughtUp):
            break
    assert seen == ["one", "two"]
    assert isinstance(told[0], Reconnecting)
    assert isinstance(told[0].error, errors.AnswerUnreadable)


async def test_a_follow_whose_first_message_cannot_be_decoded_says_so(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.streams = [[UNDECODABLE, HOLD]]
    with pytest.raises(errors.AnswerUnreadable):
        await anext(client.follow("local/demo"))


@pytest.mark.parametrize("seconds", [86_400 * 365 * 10_000, 2**62, -(2**62), 8 * 10**13])
async def test_a_follow_waits_at_most_an_hour_and_a_half(
    server: LogServer, client: TaskLogsClient, seconds: int
) -> None:
    told: asyncio.Queue[Reconnecting | Reconnected] = asyncio.Queue()
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=seconds))
    server.streams = [[status("a", ACTIVE), Refusal(grpc.StatusCode.UNAVAILABLE, "later", [retry])]]
    follow = client.follow("local/demo", on_reconnect=told.put_nowait)
    await anext(follow)
    waiting = asyncio.ensure_future(anext(follow))
    try:
        what = await asyncio.wait_for(told.get(), DEADLINE_SECONDS)
    finally:
        waiting.cancel()
        await asyncio.wait({waiting})
    assert isinstance(what, Reconnecting)
    assert what.delay <= timedelta(hours=1.5)


def test_a_stream_is_abandoned_when_an_entry_grows_past_the_limit() -> None:
    assembly = Assembly()
    assembly.apply(entries("a", entry(0, "", 1)))
    growing = (
        delta(
            "b",
            0,
            revision,
            revision + 1,
            (revision - 1) * MIB,
            "x" * MIB,
            crc32=zlib.crc32(b"x" * (revision * MIB)),
        )
        for revision in itertools.count(1)
    )
    for message in itertools.islice(growing, 4):
        assembly.apply(message)
    with pytest.raises(WrongDelta, match="has a result of"):
        assembly.apply(next(growing))
