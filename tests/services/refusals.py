"""What a call of the API was refused with, its details decoded by type."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tasklogs.agent.stream_status import StreamCall

M = TypeVar("M", bound=Message)

_KINDS = {
    kind.DESCRIPTOR.full_name: kind
    for kind in (
        error_details_pb2.ErrorInfo,
        error_details_pb2.RetryInfo,
        error_details_pb2.BadRequest,
        error_details_pb2.PreconditionFailure,
        error_details_pb2.QuotaFailure,
    )
}


@dataclass(frozen=True)
class Refusal:
    code: grpc.StatusCode
    message: str
    details: Sequence[Any]

    @property
    def kinds(self) -> list[str]:
        """The names of the details, in their order."""
        return [type(detail).__name__ for detail in self.details]

    @property
    def reason(self) -> str | None:
        info = self._first("ErrorInfo")
        assert info is None or info.domain == "tasklogs.v1"
        return None if info is None else info.reason

    @property
    def metadata(self) -> Mapping[str, str]:
        info = self._first("ErrorInfo")
        return {} if info is None else dict(info.metadata)

    @property
    def retry_seconds(self) -> float | None:
        retry = self._first("RetryInfo")
        return None if retry is None else retry.retry_delay.ToTimedelta().total_seconds()

    @property
    def fields(self) -> list[str]:
        """The fields that a BadRequest names."""
        request = self._first("BadRequest")
        return [] if request is None else [one.field for one in request.field_violations]

    def _first(self, kind: str) -> Any:
        return next((one for one in self.details if type(one).__name__ == kind), None)


def decoded(status: status_pb2.Status) -> list[Any]:
    """A status' details; fails where one is of a type that no client would know."""
    details = []
    for packed in status.details:
        message = _KINDS[packed.TypeName()]()
        assert packed.Unpack(message)
        details.append(message)
    return details


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    # AioRpcError has the three methods of grpc.Call that from_call asks.
    status = rpc_status.from_call(cast("grpc.Call", error))
    details = [] if status is None else decoded(status)
    return Refusal(error.code(), error.details() or "", details)


async def refused(call: Awaitable[Any]) -> Refusal:
    """Await a call that must fail; return what it failed with."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    raise AssertionError(f"it was answered: {answer}")


async def refused_stream(call: StreamCall, *messages: object) -> Refusal:
    """Write to a stream that must be refused, and read; the end may meet either of them."""

    async def talk() -> object:
        for message in messages:
            await call.write(message)
        return await call.read()

    return await refused(talk())
