"""Parsing the API's errors: over a real connection, and from malformed bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from tasklogs.connection.channel import open_channel
from tasklogs.errors import FieldViolation, TaskLogsRpcError, Unauthenticated, parsed_rpc_errors
from tasklogs.reasons import REASONS, Reason
from tasklogs.v1 import tasks_pb2, tasks_pb2_grpc
from tests.client.scripted_server import Refusal, ScriptedServer, scripted_server


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


async def failure(server: ScriptedServer, refusal: Refusal) -> TaskLogsRpcError:
    server.script.append(refusal)
    async with open_channel(server.address) as channel:
        with pytest.raises(TaskLogsRpcError) as caught, parsed_rpc_errors():
            await tasks_pb2_grpc.TasksStub(channel).GetTask(tasks_pb2.GetTaskRequest(task="a/b"))
    return caught.value


def of_bytes(code: grpc.StatusCode, message: str, details: bytes) -> TaskLogsRpcError:
    trailing = grpc.aio.Metadata(("grpc-status-details-bin", details))
    return TaskLogsRpcError.from_rpc_error(
        grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, message)
    )


async def test_reason_and_metadata_come_from_the_error_info(server: ScriptedServer) -> None:
    info = error_details_pb2.ErrorInfo(
        reason="TASK_STATE_CONFLICT",
        domain="tasklogs.v1",
        metadata={"status": "TASK_STATUS_ERROR"},
    )

    error = await failure(server, Refusal(grpc.StatusCode.FAILED_PRECONDITION, "no", [info]))

    assert error.code is grpc.StatusCode.FAILED_PRECONDITION
    assert error.message == "no"
    assert error.reason == "TASK_STATE_CONFLICT"
    assert error.metadata == {"status": "TASK_STATUS_ERROR"}
    assert str(error) == "FAILED_PRECONDITION: no (TASK_STATE_CONFLICT)"


async def test_every_violation_of_a_bad_request_is_kept(server: ScriptedServer) -> None:
    bad_request = error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field="task", description="is empty"),
            error_details_pb2.BadRequest.FieldViolation(field="tail", description="is negative"),
        ]
    )

    error = await failure(server, Refusal(grpc.StatusCode.INVALID_ARGUMENT, "bad", [bad_request]))

    assert error.violations == (
        FieldViolation(field="task", description="is empty"),
        FieldViolation(field="tail", description="is negative"),
    )


async def test_the_delay_of_a_retry_info_is_a_timedelta(server: ScriptedServer) -> None:
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000))

    error = await failure(server, Refusal(grpc.StatusCode.UNAVAILABLE, "busy", [retry]))

    assert error.retry_after == timedelta(seconds=1.5)


async def test_an_error_without_details_has_code_and_message_alone(server: ScriptedServer) -> None:
    error = await failure(server, Refusal(grpc.StatusCode.INTERNAL, "internal error"))

    assert (error.code, error.message) == (grpc.StatusCode.INTERNAL, "internal error")
    assert (error.reason, error.metadata, error.violations) == (None, {}, ())
    assert error.retry_after is None


async def test_an_error_info_of_another_service_is_not_a_reason(server: ScriptedServer) -> None:
    info = error_details_pb2.ErrorInfo(reason="RATE_LIMITED", domain="proxy.example")

    error = await failure(server, Refusal(grpc.StatusCode.UNAVAILABLE, "later", [info]))

    assert error.reason is None


@pytest.mark.parametrize(
    "details",
    [
        b"\xff not a status",
        # A status that contradicts gRPC's own.
        status_pb2.Status(code=5, message="other").SerializeToString(),
    ],
)
def test_malformed_details_do_not_hide_the_error(details: bytes) -> None:
    error = of_bytes(grpc.StatusCode.UNAVAILABLE, "later", details)

    assert (error.code, error.message, error.reason) == (
        grpc.StatusCode.UNAVAILABLE,
        "later",
        None,
    )


async def test_an_invalid_delay_does_not_hide_the_reason(server: ScriptedServer) -> None:
    broken = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=2**62))
    info = error_details_pb2.ErrorInfo(reason="DRAINING", domain="tasklogs.v1")

    error = await failure(server, Refusal(grpc.StatusCode.UNAVAILABLE, "later", [broken, info]))

    assert error.reason == "DRAINING"
    assert error.retry_after is None


def test_a_detail_whose_bytes_are_broken_does_not_hide_the_next() -> None:
    status = status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message="later")
    status.details.add(
        type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\x0a\x7f truncated"
    )
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="DRAINING", domain="tasklogs.v1"))

    error = of_bytes(grpc.StatusCode.UNAVAILABLE, "later", status.SerializeToString())

    assert (error.reason, error.retry_after) == ("DRAINING", None)


async def test_the_request_id_comes_from_the_details(server: ScriptedServer) -> None:
    info = error_details_pb2.RequestInfo(request_id="4f2a")

    error = await failure(server, Refusal(grpc.StatusCode.INTERNAL, "no", [info]))

    assert error.request_id == "4f2a"


def test_the_request_id_comes_from_the_metadata_if_there_are_no_details() -> None:
    for place in ("trailing", "initial"):
        metadata = {"trailing": grpc.aio.Metadata(), "initial": grpc.aio.Metadata()}
        metadata[place] = grpc.aio.Metadata(("x-request-id", "4f2a"))
        error = TaskLogsRpcError.from_rpc_error(
            grpc.aio.AioRpcError(
                grpc.StatusCode.UNKNOWN, metadata["initial"], metadata["trailing"], "no"
            )
        )

        assert error.request_id == "4f2a"


def test_an_error_that_no_server_sent_has_no_request_id() -> None:
    assert of_bytes(grpc.StatusCode.UNAVAILABLE, "no connection", b"").request_id is None


@pytest.mark.parametrize(
    ("reason", "retry_after", "retry"),
    [
        ("TASK_NOT_FOUND", None, "no"),
        ("SESSION_LOST", None, "now"),
        ("DRAINING", timedelta(seconds=1), "after"),
        ("A_REASON_OF_TOMORROW", timedelta(seconds=1), "after"),
        ("A_REASON_OF_TOMORROW", None, None),
        (None, None, None),
    ],
)
def test_retry_says_what_the_table_says_and_for_other_errors_what_the_server_says(
    reason: str | None, retry_after: timedelta | None, retry: str | None
) -> None:
    error = TaskLogsRpcError(
        code=grpc.StatusCode.UNKNOWN, message="", reason=reason, retry_after=retry_after
    )

    assert error.retry == retry


@pytest.mark.parametrize("reason", REASONS.values(), ids=lambda one: one.name)
async def test_every_reason_becomes_an_error_of_its_code(
    server: ScriptedServer, reason: Reason
) -> None:
    info = error_details_pb2.ErrorInfo(reason=reason.name, domain="tasklogs.v1")

    error = await failure(server, Refusal(grpc.StatusCode[reason.code.name], "no", [info]))

    assert (error.reason, error.code, error.retry) == (reason.name, reason.code, reason.retry)


@pytest.mark.parametrize(
    ("message", "reason", "status"),
    [
        ("Received http2 header with status: 401", None, 401),
        ("Received http2 header with status: 401", "TOKEN_INVALID", None),
        ("Received http2 header with status: 401, or so", None, None),
        ("Jwt is missing", None, None),
    ],
)
def test_an_answer_of_a_proxy_has_its_http_status(
    message: str, reason: str | None, status: int | None
) -> None:
    error = Unauthenticated(code=grpc.StatusCode.UNAUTHENTICATED, message=message, reason=reason)
    assert error.http_status == status
    assert error.is_from_the_server == (reason is not None)
