"""What a server says about itself, and what the library refuses on an older server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tasklogs import (
    CaughtUp,
    ReconnectWaits,
    ServerInfo,
    ServerLimits,
    StatusChanged,
    SyncTaskLogsClient,
    TaskLogsClient,
    TaskLogType,
)
from tasklogs.errors import AnswerUnreadable, UnsupportedByServer
from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import types_pb2
from tests.cli.samples import page
from tests.client.scripted_server import Refusal
from tests.support.fakes.log_server import (
    ACTIVE,
    END,
    HOLD,
    LogServer,
    caught_up,
    log_server,
    status,
)

SOON = ReconnectWaits(first=timedelta(milliseconds=2), cap=timedelta(milliseconds=10))
LIMITS = pb.GetServerInfoResponse.Limits(
    message_bytes=4,
    entry_bytes=3,
    page_entries=2,
    page_tasks=1,
    upload_bytes=64,
    default_deadline=Duration(seconds=60),
)
NEW = pb.GetServerInfoResponse(
    version="0.2.0",
    features=["progress_interval", "telepathy"],
    entry_types=[types_pb2.TASK_LOG_TYPE_INPUT, types_pb2.TASK_LOG_TYPE_OUTPUT],
    limits=LIMITS,
)
OLDER = pb.GetServerInfoResponse(version="0.1.0", features=["telepathy"], limits=LIMITS)
OLDEST = Refusal(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
MINUTE = timedelta(minutes=1)


@pytest.fixture
async def server() -> AsyncIterator[LogServer]:
    async with log_server() as server:
        yield server


@pytest.fixture
async def client(server: LogServer) -> AsyncIterator[TaskLogsClient]:
    async with TaskLogsClient(server.address, reconnect_waits=SOON) as client:
        yield client


async def test_it_has_version_features_types_and_limits(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.answers = [NEW]

    assert await client.server_info() == ServerInfo(
        version="0.2.0",
        features=frozenset({"progress_interval", "telepathy"}),
        entry_types=(TaskLogType.INPUT, TaskLogType.OUTPUT),
        limits=ServerLimits(
            message_bytes=4,
            entry_bytes=3,
            page_entries=2,
            page_tasks=1,
            upload_bytes=64,
            default_deadline=MINUTE,
        ),
    )


async def test_a_server_without_the_method_is_older_than_0_1(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.answers = [OLDEST]
    with pytest.raises(UnsupportedByServer, match=r"older than 0\.1"):
        await client.server_info()


async def test_an_impossible_duration_is_unreadable(
    server: LogServer, client: TaskLogsClient
) -> None:
    limits = pb.GetServerInfoResponse.Limits(default_deadline=Duration(seconds=2**62))
    server.answers = [pb.GetServerInfoResponse(limits=limits)]
    with pytest.raises(AnswerUnreadable):
        await client.server_info()


async def test_reads_and_plain_follows_ask_for_no_features(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.answers = [page()]
    server.streams = [[status("a", ACTIVE), HOLD]]
    await client.get("local/demo")
    await anext(client.follow("local/demo"))
    assert [type(one) for one in server.requests] == [pb.GetTaskLogsRequest]


async def test_a_feature_is_asked_for_once_by_all_that_need_it(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.answers = [NEW]
    server.streams = [
        [status("a", ACTIVE), END],
        [status("a", ACTIVE), caught_up("b"), HOLD],
        [status("a", ACTIVE), HOLD],
    ]
    broken = client.follow("local/demo", progress_interval=MINUTE)
    assert [type(await anext(broken)) for _ in range(2)] == [StatusChanged, CaughtUp]
    await anext(client.follow("local/demo", progress_interval=MINUTE))
    assert [type(one) for one in server.requests] == [pb.GetServerInfoRequest]
    assert [one.progress_interval.ToTimedelta() for one in server.follows] == [MINUTE] * 3


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (OLDER, r"\(version 0\.1\.0\) lacks progress_interval"),
        (OLDEST, r"is older than 0\.1"),
    ],
)
async def test_an_older_server_is_not_asked_to_follow_with_what_it_would_ignore(
    server: LogServer, client: TaskLogsClient, answer: pb.GetServerInfoResponse, why: str
) -> None:
    server.answers = [answer]
    with pytest.raises(UnsupportedByServer, match=f"`progress_interval` is not supported: .*{why}"):
        await anext(client.follow("local/demo", progress_interval=MINUTE))
    assert server.follows == []


async def test_what_a_server_lacked_is_asked_again_because_it_may_be_a_newer_one(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.answers = [OLDER, NEW]
    server.streams = [[status("a", ACTIVE), HOLD]]
    with pytest.raises(UnsupportedByServer):
        await anext(client.follow("local/demo", progress_interval=MINUTE))
    await anext(client.follow("local/demo", progress_interval=MINUTE))


async def test_the_synchronous_client_has_it_too(server: LogServer) -> None:
    server.answers = [NEW]

    def ask() -> str:
        with SyncTaskLogsClient(server.address) as client:
            return client.server_info().version

    assert await asyncio.to_thread(ask) == "0.2.0"
