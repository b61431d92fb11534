"""Server reflection, v1 and v1alpha, for clients without a proto file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2

from tasklogs_server.transport.reflection import Reflection
from tests.support.fixtures.postgres import MakeDatabase
from tests.support.fixtures.server import Server, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

METHODS = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
]
SERVICES = {
    "tasklogs.v1.TaskLogs",
    "tasklogs.v1.Tasks",
    "tasklogs.v1.TaskAgents",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(make_database: MakeDatabase) -> AsyncIterator[Server]:
    """One for all: nobody here changes anything."""
    with make_database() as dsn:
        async with serving(dsn) as running:
            yield running


@pytest.fixture(params=METHODS, ids=["v1", "v1alpha"])
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def ask(server: Server, method: str, **fields: Any) -> Any:
    untyped: Any = server.channel
    call = untyped.stream_stream(
        method,
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )

    async def requests() -> AsyncIterator[Any]:
        yield reflection_pb2.ServerReflectionRequest(**fields)

    return await call(requests()).read()


async def files(server: Server, method: str, symbol: str) -> dict[str, FileDescriptorProto]:
    answer = await ask(server, method, file_containing_symbol=symbol)
    parsed = [
        FileDescriptorProto.FromString(raw)
        for raw in answer.file_descriptor_response.file_descriptor_proto
    ]
    return {file.name: file for file in parsed}


async def test_every_service_is_listed(server: Server, method: str) -> None:
    answer = await ask(server, method, list_services="")

    assert {one.name for one in answer.list_services_response.service} == SERVICES


@pytest.mark.parametrize("service", sorted(SERVICES))
async def test_every_listed_service_has_a_descriptor(
    server: Server, method: str, service: str
) -> None:
    found = await files(server, method, service)

    assert any(
        f"{file.package}.{one.name}" == service for file in found.values() for one in file.service
    )


async def test_fields_carry_their_json_names(server: Server, method: str) -> None:
    found = await files(server, method, "tasklogs.v1.GetTaskLogsResponse")

    [message] = [
        one
        for one in found["tasklogs/v1/task_logs.proto"].message_type
        if one.name == "GetTaskLogsResponse"
    ]
    assert {one.name: one.json_name for one in message.field}["snapshot_at"] == "snapshotAt"


@pytest.mark.parametrize(
    "symbol",
    [
        "google.rpc.ErrorInfo",
        "google.rpc.RetryInfo",
        "google.rpc.BadRequest",
        "google.rpc.PreconditionFailure",
        "google.rpc.QuotaFailure",
    ],
)
async def test_clients_can_decode_error_details(server: Server, method: str, symbol: str) -> None:
    assert "google/rpc/error_details.proto" in await files(server, method, symbol)


async def test_an_unknown_symbol_is_answered_with_an_error(server: Server, method: str) -> None:
    answer = await ask(server, method, file_containing_symbol="tasklogs.v1.Nothing")

    assert answer.error_response.error_code == 5


async def test_a_file_is_encoded_once() -> None:
    served: Any = Reflection(sorted(SERVICES))
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="tasklogs.v1.Tasks")
    first = served._file_containing_symbol(request, "tasklogs.v1.Tasks")
    served._pool = None  # what the library encodes from

    again = served._file_containing_symbol(request, "tasklogs.v1.Tasks")

    assert again == first
    assert len(first.file_descriptor_response.file_descriptor_proto) > 1
