"""A grpc.aio server with scripted responses: for errors that a real one rarely gives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

import grpc
import grpc.aio
from google.protobuf import any_pb2, message_factory
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc_status import rpc_status

from tasklogs.v1 import task_logs_pb2, tasks_pb2
from tests.support.fakes.server_info import unscripted_info

SERVICES = (
    tasks_pb2.DESCRIPTOR.services_by_name["Tasks"],
    task_logs_pb2.DESCRIPTOR.services_by_name["TaskLogs"],
)


@dataclass(frozen=True)
class Refusal:
    """A response with a status and its details."""

    code: grpc.StatusCode
    message: str
    details: Sequence[Message] = ()

    async def abort(self, context: grpc.aio.ServicerContext[Message, Message]) -> Message:
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in self.details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        await context.abort_with_status(rpc_status.to_status(status))
        raise AssertionError("abort_with_status returns never")


@dataclass(frozen=True)
class Silence:
    """No response until the caller leaves."""


Answer: TypeAlias = Message | Refusal | Silence


class ScriptedServer:
    """Gives the responses in `script` in order, and keeps the requests."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.script: list[Answer] = []
        self.requests: list[Message] = []
        self.called = asyncio.Event()
        """Set by each call."""

    async def answer(
        self, request: Message, context: grpc.aio.ServicerContext[Message, Message]
    ) -> Message:
        info = unscripted_info(request, self.script)
        if info is not None:
            return info
        self.requests.append(request)
        self.called.set()
        answer = self.script.pop(0)
        match answer:
            case Refusal():
                return await answer.abort(context)
            case Silence():
                return await asyncio.Future()
            case _:
                return answer


@asynccontextmanager
async def scripted_server() -> AsyncIterator[ScriptedServer]:
    """Serve on a free port of loopback."""
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    scripted = ScriptedServer(f"127.0.0.1:{port}")
    for service in SERVICES:
        handlers: dict[str, grpc.RpcMethodHandler[Message, Message]] = {
            method.name: grpc.unary_unary_rpc_method_handler(
                scripted.answer,
                request_deserializer=message_factory.GetMessageClass(method.input_type).FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
            for method in service.methods
        }
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(service.full_name, handlers)]
        )
    await server.start()
    try:
        yield scripted
    finally:
        await server.stop(grace=None)
