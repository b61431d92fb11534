"""GetServerInfo: what the server says about itself, and to whom."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import grpc
import pytest

from tasklogs import features
from tasklogs.log.entry import EntryType
from tasklogs.v1 import task_logs_pb2 as pb
from tests.support.fixtures.authenticated import bearing, guarded
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.server import MakeServer, Server

ASKED = pb.GetServerInfoRequest()


async def test_it_has_version_features_types_and_limits(make_server: MakeServer) -> None:
    async with make_server(
        message_bytes=5_000_000, default_deadline=timedelta(seconds=7)
    ) as server:
        info = await server.logs.GetServerInfo(ASKED)

    assert info.version == version("tasklogs")
    assert list(info.features) == list(features.ALL)
    assert list(info.entry_types) == [int(one) for one in EntryType]
    limits = info.limits
    assert (limits.message_bytes, limits.entry_bytes) == (5_000_000, 1 << 20)
    assert (limits.page_entries, limits.page_tasks) == (1000, 1000)
    assert limits.upload_bytes == 64 << 20
    assert limits.default_deadline.ToTimedelta() == timedelta(seconds=7)


def test_each_feature_is_named_once_and_the_agent_streams_are_among_them() -> None:
    assert len(set(features.ALL)) == len(features.ALL)
    assert set(features.AGENT_STREAM) <= set(features.ALL)
    constants = {value for name, value in vars(features).items() if isinstance(value, str)}
    assert set(features.ALL) <= constants


async def test_the_limit_of_a_message_is_the_one_that_holds(server: Server) -> None:
    limit = (await server.logs.GetServerInfo(ASKED)).limits.message_bytes
    refusal = await refused(server.logs.GetTaskLogs(pb.GetTaskLogsRequest(task="x" * (limit + 1))))
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_users_and_agents_may_ask_and_nobody_else(
    make_server: MakeServer, tmp_path: Path
) -> None:
    async with guarded(make_server, tmp_path) as guard:
        created = await guard.create("alice")
        logs = guard.server.logs
        for metadata in (guard.as_("alice"), guard.as_("bob"), bearing(created.agent_token)):
            assert (await logs.GetServerInfo(ASKED, metadata=metadata)).version

        made_up = created.agent_token[:-1] + ("A" if created.agent_token[-1] != "A" else "B")
        for metadata in ((), bearing("x"), bearing(made_up)):
            refusal = await refused(logs.GetServerInfo(ASKED, metadata=metadata))
            assert refusal.code is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("token", [None, "tla_x", "anything"])
async def test_without_authentication_everyone_may_ask(server: Server, token: str | None) -> None:
    metadata = () if token is None else bearing(token)
    async with asyncio.timeout(10):
        assert (await server.logs.GetServerInfo(ASKED, metadata=metadata)).version
