"""Calls that run while their client is closed, and calls afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from tasklogs import ClientClosed, Entry, TaskLogsClient, TaskLogType, errors
from tests.cli.samples import page
from tests.client.test_follow import refusal
from tests.support.fakes.log_server import HOLD, LogServer, entry, log_server
from tests.support.fixtures.conditions import until

TASK = "local/demo"
CODE = grpc.StatusCode
BUSY = refusal(
    CODE.UNAVAILABLE,
    "STORE_UNAVAILABLE",
    error_details_pb2.RetryInfo(retry_delay=Duration(seconds=20)),
)
"""The client waits before it tries again."""


@pytest.fixture
async def server() -> AsyncIterator[LogServer]:
    async with log_server() as server:
        yield server


async def _get(client: TaskLogsClient) -> None:
    await client.get(TASK)


async def _get_task(client: TaskLogsClient) -> None:
    await client.get_task(TASK)


async def _page(client: TaskLogsClient) -> None:
    await (await client.get(TASK)).all()


async def _list(client: TaskLogsClient) -> None:
    async for _ in client.list_tasks():
        pass


async def _needs(client: TaskLogsClient) -> None:
    await client.get(TASK, types=[TaskLogType.INPUT])


Use = Callable[[TaskLogsClient], Awaitable[None]]
USES: dict[str, tuple[Use, list[object]]] = {
    "a read": (_get, [HOLD]),
    "a call": (_get_task, [HOLD]),
    "a later page": (_page, [page(entry(0, "a", 1), next_page_token="p2"), HOLD]),
    "a list": (_list, [HOLD]),
    "a question about features": (_needs, [HOLD]),
    "a wait before a retry": (_get_task, [BUSY]),
}


@pytest.mark.parametrize(("use", "answers"), USES.values(), ids=USES.keys())
async def test_a_call_during_which_the_client_is_closed_says_so(
    server: LogServer, use: Use, answers: list[object]
) -> None:
    server.answers = list(answers)  # type: ignore[arg-type]
    client = await TaskLogsClient(server.address).connect()

    async def close_meanwhile() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(_used(client, use))
            await until(lambda: server.called.is_set() and not server.answers)
            await asyncio.sleep(0)
            await client.close()

    # A bare cancellation would end the task without a word.
    with pytest.raises(ExceptionGroup) as caught:
        await close_meanwhile()

    assert [type(one) for one in caught.value.exceptions] == [ClientClosed]


async def test_an_upload_in_parts_during_which_the_client_is_closed_says_so() -> None:
    reached = asyncio.Event()

    async def never(requests: AsyncIterator[bytes], _: object) -> bytes:
        reached.set()
        return await asyncio.Future()

    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_unary_rpc_method_handler(never)
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(
                "tasklogs.v1.TaskAgents", {"UploadLogSnapshotInParts": handler}
            )
        ]
    )
    await server.start()
    client = await TaskLogsClient(f"127.0.0.1:{port}", token="t").connect()
    parts = [Entry.input("a" * 1_000_000) for _ in range(4)]
    uploading = asyncio.create_task(client.upload_log(parts))
    await reached.wait()

    await client.close()

    with pytest.raises(ClientClosed):
        await uploading
    await server.stop(None)


async def test_a_call_that_awaits_its_token_when_the_client_is_closed_says_so(
    server: LogServer,
) -> None:
    waiting = asyncio.Event()

    async def token() -> str:
        waiting.set()
        await asyncio.Event().wait()
        raise AssertionError

    client = await TaskLogsClient(server.address, token=token).connect()
    calling = asyncio.create_task(client.get_task(TASK))
    await waiting.wait()

    await client.close()

    with pytest.raises(ClientClosed):
        await calling
    assert server.requests == []


async def test_the_callers_own_cancellation_stays_one_when_the_client_is_closed_meanwhile(
    server: LogServer,
) -> None:
    server.answers = [HOLD]
    client = await TaskLogsClient(server.address).connect()
    calling = asyncio.create_task(client.get_task(TASK))
    await server.called.wait()

    calling.cancel()
    await client.close()

    await asyncio.wait({calling})
    assert calling.cancelled()


async def test_the_callers_own_time_out_stays_one(server: LogServer) -> None:
    server.answers = [HOLD]
    async with TaskLogsClient(server.address) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.get_task(TASK)


@pytest.mark.parametrize("opened", [False, True], ids=["never opened", "closed"])
async def test_every_method_of_a_client_that_is_not_open_says_so(
    server: LogServer, *, opened: bool
) -> None:
    client = TaskLogsClient(server.address)
    if opened:
        await client.connect()
        await client.close()
    for use in (_get, _get_task, _list, _needs):
        with pytest.raises(ClientClosed, match="connect"):
            await use(client)
    with pytest.raises(ClientClosed):
        client.follow(TASK)


async def test_a_call_on_a_channel_that_its_owner_closed_says_so(server: LogServer) -> None:
    server.answers = [HOLD]
    channel = grpc.aio.insecure_channel(server.address)
    async with TaskLogsClient(channel=channel) as client:
        calling = asyncio.create_task(client.get_task(TASK))
        await server.called.wait()

        await channel.close()

        with pytest.raises(ClientClosed):
            await calling
        with pytest.raises(ClientClosed):
            await client.get_task(TASK)


async def test_a_cancellation_in_the_function_for_the_token_is_passed_on(
    server: LogServer,
) -> None:
    async def token() -> str:
        raise asyncio.CancelledError

    async with TaskLogsClient(server.address, token=token) as client:
        with pytest.raises(asyncio.CancelledError):
            await client.get_task(TASK)


async def test_a_client_that_is_opened_again_works(server: LogServer) -> None:
    server.answers = [HOLD, refusal(CODE.NOT_FOUND, "TASK_NOT_FOUND")]
    client = await TaskLogsClient(server.address).connect()
    calling = asyncio.create_task(client.get_task(TASK))
    await server.called.wait()
    await client.close()
    async with client:
        with pytest.raises(errors.TaskNotFound):
            await client.get_task(TASK)
    with pytest.raises(ClientClosed):
        await calling


async def _used(client: TaskLogsClient, use: Use) -> None:
    await use(client)
