"""Which calls are made again, after which wait, and for how long."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from tasklogs import (
    AgentLifecycle,
    BuildTransition,
    JobStatus,
    RetryPolicy,
    TaskLogsClient,
    TaskLogsRpcError,
    errors,
)
from tasklogs.client.retry import may_pass
from tasklogs.reasons import REASONS, Reason
from tasklogs.v1 import task_logs_pb2, tasks_pb2
from tests.cli.samples import page, task
from tests.client.scripted_server import Refusal
from tests.support.fakes.log_server import HOLD, LogServer, entry, log_server

AT_ONCE = RetryPolicy(first=timedelta(0), cap=timedelta(0))
CONNECTION_LOST = Refusal(grpc.StatusCode.UNAVAILABLE, "Socket closed")


def busy(after: timedelta = timedelta(0)) -> Refusal:
    """Return the refusal of a server without a free connection to its database."""
    wait = Duration()
    wait.FromTimedelta(after)
    return Refusal(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "busy",
        [
            error_details_pb2.ErrorInfo(reason="STORE_BUSY", domain="tasklogs.v1"),
            error_details_pb2.RetryInfo(retry_delay=wait),
        ],
    )


@pytest.fixture
async def server() -> AsyncIterator[LogServer]:
    async with log_server() as server:
        yield server


@pytest.fixture
async def client(server: LogServer) -> AsyncIterator[TaskLogsClient]:
    async with TaskLogsClient(server.address, retry=AT_ONCE) as client:
        yield client


def failed(code: errors.StatusCode | Any, message: str = "", **fields: Any) -> TaskLogsRpcError:
    return TaskLogsRpcError(code=code, message=message, **fields)


@pytest.mark.parametrize("reason", REASONS.values(), ids=lambda one: one.name)
def test_an_error_with_a_reason_may_pass_if_the_table_says_so(reason: Reason) -> None:
    assert may_pass(failed(reason.code, reason=reason.name)) is (reason.retry != "no")


@pytest.mark.parametrize("code", grpc.StatusCode, ids=lambda one: one.name)
def test_of_the_errors_without_a_reason_only_a_lost_connection_may_pass(
    code: grpc.StatusCode,
) -> None:
    assert may_pass(failed(code, "Socket closed")) is (code is grpc.StatusCode.UNAVAILABLE)


def test_a_reason_of_a_newer_server_goes_by_its_code_and_its_retry_info() -> None:
    unavailable, exhausted = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED
    assert may_pass(failed(unavailable, reason="TOMORROW"))
    assert not may_pass(failed(exhausted, reason="TOMORROW"))
    assert may_pass(failed(exhausted, reason="TOMORROW", retry_after=timedelta(seconds=1)))


@pytest.mark.parametrize("message", ["CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER"])
def test_wrong_tls_settings_do_not_pass(message: str) -> None:
    assert not may_pass(failed(grpc.StatusCode.UNAVAILABLE, f"Ssl handshake failed: {message}"))


def test_the_waits_grow_up_to_the_cap_and_end_with_the_attempts() -> None:
    policy = RetryPolicy(attempts=5, first=timedelta(seconds=1), cap=timedelta(seconds=3))
    lost = failed(grpc.StatusCode.UNAVAILABLE)
    rng = random.Random(7)

    for attempts, most in ((1, 1), (2, 2), (3, 3), (4, 3)):
        waits = [policy.wait_seconds(lost, attempts, rng) or -1 for _ in range(100)]
        assert most / 2 <= min(waits) < max(waits) <= most
    assert policy.wait_seconds(lost, 5, rng) is None


def test_the_wait_that_the_server_asks_for_is_kept_unless_it_is_too_long() -> None:
    policy = RetryPolicy(longest=timedelta(seconds=10))
    rng = random.Random(7)

    def wait(asked: float) -> float | None:
        error = failed(
            grpc.StatusCode.UNAVAILABLE, reason="DRAINING", retry_after=timedelta(seconds=asked)
        )
        return policy.wait_seconds(error, 1, rng)

    waits = [wait(4) or -1 for _ in range(100)]
    assert 4 <= min(waits) < max(waits) <= 6
    assert wait(10) is not None
    assert wait(10.1) is None


def test_a_policy_needs_an_attempt() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        RetryPolicy(attempts=0)


CALLS: dict[str, tuple[Callable[[TaskLogsClient], Awaitable[object]], Message]] = {
    "GetTaskLogs": (lambda client: client.get("a/b"), page()),
    "GetServerInfo": (lambda client: client.server_info(), task_logs_pb2.GetServerInfoResponse()),
    "GetTask": (lambda client: client.get_task("a/b"), task()),
    "ListTasks": (lambda client: anext(client.list_tasks(), None), tasks_pb2.ListTasksResponse()),
    "DeleteTask": (
        lambda client: client.delete_task("a/b", allow_missing=True),
        tasks_pb2.DeleteTaskResponse(),
    ),
    "ReportBuild": (
        lambda client: client.report_build("a/b", 1, BuildTransition.START, JobStatus.RUNNING),
        tasks_pb2.ReportBuildResponse(task=task()),
    ),
    "ReportAgent": (
        lambda client: client.report_agent("a/b", 1, lifecycle=AgentLifecycle.READY),
        tasks_pb2.ReportAgentResponse(task=task()),
    ),
    "CreateTask": (
        lambda client: client.create_task("b"),
        tasks_pb2.CreateTaskResponse(task=task()),
    ),
    "UpdateTask": (lambda client: client.update_task("a/b", display_name="x"), task()),
    "RotateAgentToken": (
        lambda client: client.rotate_agent_token("a/b"),
        tasks_pb2.RotateAgentTokenResponse(),
    ),
}
METHODS = {
    method.name: method
    for descriptor in (tasks_pb2.DESCRIPTOR, task_logs_pb2.DESCRIPTOR)
    for service in descriptor.services_by_name.values()
    for method in service.methods
}


def test_every_method_with_a_single_response_is_here() -> None:
    assert CALLS.keys() == METHODS.keys() - {"FollowTaskLogs"}


@pytest.mark.parametrize("refusal", [busy(), CONNECTION_LOST], ids=["STORE_BUSY", "lost"])
@pytest.mark.parametrize("name", CALLS)
async def test_a_call_is_repeated_if_the_api_says_that_this_does_no_harm(
    server: LogServer, client: TaskLogsClient, name: str, refusal: Refusal
) -> None:
    call, answer = CALLS[name]
    options = METHODS[name].GetOptions()
    assert isinstance(options, MethodOptions)
    # CreateTask may be repeated because the client gives it a `request_id`.
    repeatable = options.idempotency_level != MethodOptions.IDEMPOTENCY_UNKNOWN
    repeatable |= name == "CreateTask"
    server.answers = [refusal, refusal, refusal, answer]

    if repeatable:
        await call(client)
        assert server.answers == []
    else:
        with pytest.raises(errors.TaskLogsRpcError):
            await call(client)
        assert len(server.answers) == 3
    assert all(request == server.requests[0] for request in server.requests)


async def test_a_delete_that_may_have_succeeded_is_not_repeated(
    server: LogServer, client: TaskLogsClient
) -> None:
    """The answer to the second call would be TaskNotFound."""
    server.answers = [CONNECTION_LOST]

    with pytest.raises(errors.Unavailable):
        await client.delete_task("a/b")


async def test_a_call_is_given_up_after_the_attempts_of_the_policy(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.answers = [busy()] * RetryPolicy().attempts

    with pytest.raises(errors.LimitExceeded) as caught:
        await client.get_task("a/b")

    assert caught.value.reason == "STORE_BUSY"
    assert server.answers == []


async def test_without_a_policy_nothing_is_repeated(server: LogServer) -> None:
    server.answers = [busy()]
    async with TaskLogsClient(server.address, retry=None) as client:
        with pytest.raises(errors.LimitExceeded):
            await client.get_task("a/b")


async def test_what_the_error_does_not_allow_is_not_repeated(
    server: LogServer, client: TaskLogsClient
) -> None:
    for code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED):
        server.answers = [Refusal(code, "no")]
        with pytest.raises(errors.TaskLogsRpcError):
            await client.get_task("a/b")


async def test_a_log_goes_on_after_a_blip_on_its_third_page(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.answers = [
        page(entry(0, "a", 1), next_page_token="2"),
        page(entry(1, "b", 2), next_page_token="3"),
        CONNECTION_LOST,
        busy(),
        page(entry(2, "c", 3)),
    ]

    log = await client.get("local/demo")

    assert [one.content async for one in log.entries()] == ["a", "b", "c"]


async def test_a_list_goes_on_after_a_blip_on_its_third_page(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.answers = [
        tasks_pb2.ListTasksResponse(tasks=[task("a")], next_page_token="2"),
        tasks_pb2.ListTasksResponse(tasks=[task("b")], next_page_token="3"),
        CONNECTION_LOST,
        tasks_pb2.ListTasksResponse(tasks=[task("c")]),
    ]

    assert [one.name async for one in client.list_tasks()] == ["a", "b", "c"]


async def test_a_wait_that_does_not_fit_into_the_time_out_is_not_begun(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.answers = [busy(timedelta(seconds=20))]

    async with asyncio.timeout(10):
        with pytest.raises(errors.LimitExceeded) as caught:
            await client.get_task("a/b", timeout=timedelta(seconds=15))

    assert caught.value.retry_after == timedelta(seconds=20)


async def test_all_attempts_share_the_time_out(server: LogServer) -> None:
    server.answers = [busy(), HOLD]
    async with TaskLogsClient(server.address, retry=AT_ONCE) as client:
        with pytest.raises(errors.DeadlineExceeded) as caught:
            await client.get_task("a/b", timeout=timedelta(milliseconds=300))

    assert isinstance(caught.value.__cause__, errors.LimitExceeded)
    assert server.answers == []


async def test_the_wait_for_the_token_is_part_of_the_time_out(server: LogServer) -> None:
    async def never() -> str:
        return await asyncio.Future()

    async with TaskLogsClient(server.address, token=never) as client:
        with pytest.raises(errors.DeadlineExceeded, match="token"):
            await client.get_task("a/b", timeout=timedelta(milliseconds=50))
        with pytest.raises(errors.DeadlineExceeded, match="token"):
            await client.upload_log([], timeout=timedelta(milliseconds=50))


@pytest.mark.parametrize("name", CALLS)
async def test_a_time_out_of_zero_is_one_that_has_passed(
    server: LogServer, client: TaskLogsClient, name: str
) -> None:
    async with TaskLogsClient(server.address, timeout=timedelta(0)) as client:
        with pytest.raises(errors.DeadlineExceeded):
            await CALLS[name][0](client)

    assert server.requests == []


async def test_the_log_names_the_call_the_error_and_the_wait(
    server: LogServer, client: TaskLogsClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tasklogs")
    server.answers = [busy(), task()]

    await client.get_task("a/b")

    assert [record.getMessage() for record in caplog.records if record.name == "tasklogs"] == [
        "GetTask failed: RESOURCE_EXHAUSTED: busy (STORE_BUSY); attempt 2 in 0.0 s"
    ]


async def test_a_failed_call_leaves_nothing_to_the_garbage_collector(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.answers = [Refusal(grpc.StatusCode.NOT_FOUND, "no")]
    gc.collect()
    gc.disable()
    try:
        with suppress(errors.TaskLogsRpcError):
            await client.get_task("local/demo")
        # The traceback of the error refers to all frames, and the last of them to the request.
        kept = [one for one in gc.get_objects() if isinstance(one, errors.TaskLogsRpcError)]
    finally:
        gc.enable()

    assert kept == []
