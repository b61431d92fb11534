"""Opening and closing a client: its block, `connect` and `close`, and a channel of the caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import grpc.aio
import pytest

from tasklogs import CaughtUp, StatusChanged, SyncTaskLogsClient, TaskLogsClient, Tls, errors
from tests.cli.samples import page, task
from tests.client.test_follow import DRAINING
from tests.support.fakes.log_server import (
    ACTIVE,
    HOLD,
    LogServer,
    caught_up,
    entry,
    log_server,
    status,
)


@pytest.fixture
async def server() -> AsyncIterator[LogServer]:
    async with log_server() as server:
        yield server


async def test_a_client_is_open_from_connect_to_close(server: LogServer) -> None:
    server.answers = [task("one"), task("two")]
    client = TaskLogsClient(server.address)
    with pytest.raises(RuntimeError, match="connect"):
        await client.get_task("local/demo")

    assert await client.connect() is client
    assert (await client.get_task("local/demo")).name == "one"
    await client.close()
    await client.close()

    with pytest.raises(RuntimeError, match="connect"):
        client.follow("local/demo")
    async with client:  # a closed client can be opened again
        assert (await client.get_task("local/demo")).name == "two"


async def test_an_open_client_keeps_its_connection_when_it_is_opened_again(
    server: LogServer,
) -> None:
    server.streams = [[status("c0", ACTIVE), HOLD]]
    async with await TaskLogsClient(server.address).connect() as client:
        follow = client.follow("local/demo")
        await anext(follow)
        reading = asyncio.create_task(anext(follow, None))

        await client.connect()

        await server.held.wait()
        assert not server.left.is_set()
    assert await reading is None


async def test_without_asyncio_too(server: LogServer) -> None:
    server.answers = [task("one")]

    def use() -> str:
        client = SyncTaskLogsClient(server.address).connect()
        try:
            return client.connect().get_task("local/demo").name
        finally:
            client.close()

    assert await asyncio.to_thread(use) == "one"


async def test_a_channel_of_the_caller_is_used_and_stays_open(server: LogServer) -> None:
    server.answers = [task("one"), task("two")]
    server.streams = [[status("c0", ACTIVE), HOLD]]
    async with grpc.aio.insecure_channel(server.address) as channel:
        async with TaskLogsClient(channel=channel, token="secret") as client:
            assert (await client.get_task("local/demo")).name == "one"
            follow = client.follow("local/demo")
            await anext(follow)
        with pytest.raises(StopAsyncIteration):
            await anext(follow)
        await server.left.wait()

        async with TaskLogsClient(channel=channel) as other:
            assert (await other.get_task("local/demo")).name == "two"
    assert server.tokens == ["Bearer secret", "Bearer secret", None]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "`address` or `channel`"),
        ({"address": "a:1", "channel": True}, "`address` or `channel`"),
        ({"tls": Tls(), "channel": True}, "belong to your own `channel`"),
        ({"options": [("a", 1)], "channel": True}, "belong to your own `channel`"),
    ],
    ids=["nothing", "both", "tls", "options"],
)
async def test_settings_that_contradict_each_other_are_refused(
    settings: dict[str, Any], said: str
) -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:9") as channel:
        if "channel" in settings:
            settings = {**settings, "channel": channel}
        with pytest.raises(ValueError, match=said):
            TaskLogsClient(**settings)


async def test_an_option_of_the_caller_replaces_that_of_the_library(server: LogServer) -> None:
    server.answers = [page(entry(0, "long " * 100, 1))]
    small = [("grpc.max_receive_message_length", 100)]

    async with TaskLogsClient(server.address, options=small) as client:
        with pytest.raises(errors.LimitExceeded, match="larger than max"):
            await client.get("local/demo")


Continuation: TypeAlias = Callable[[grpc.aio.ClientCallDetails, Any], Any]


class Calls(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, seen: list[str]) -> None:
        self._seen = seen

    async def intercept_unary_unary(
        self,
        continuation: Continuation,
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        self._seen.append(type(request).__name__)
        return await continuation(client_call_details, request)


class Follows(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, seen: list[str]) -> None:
        self._seen = seen

    async def intercept_unary_stream(
        self,
        continuation: Continuation,
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        self._seen.append(type(request).__name__)
        return await continuation(client_call_details, request)


async def test_interceptors_see_calls_and_follows(server: LogServer) -> None:
    server.answers = [task()]
    server.streams = [
        [status("c0", ACTIVE), DRAINING],
        [status("c0", ACTIVE), caught_up("c0"), HOLD],
    ]
    seen: list[str] = []
    async with TaskLogsClient(server.address, interceptors=[Calls(seen), Follows(seen)]) as client:
        await client.get_task("local/demo")
        follow = client.follow("local/demo")
        assert [type(await anext(follow)) for _ in "12"] == [StatusChanged, CaughtUp]
        reading = asyncio.create_task(anext(follow))
        await server.held.wait()
        reading.cancel()
        await asyncio.wait([reading])
        assert reading.cancelled()
    await server.left.wait()

    assert seen == ["GetTaskRequest", "FollowTaskLogsRequest", "FollowTaskLogsRequest"]
