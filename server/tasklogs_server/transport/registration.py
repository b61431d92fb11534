"""One function that registers every service on a server; the list of what is served."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from tasklogs.v1 import task_agents_pb2, task_logs_pb2, tasks_pb2
from tasklogs_server.services.task_agents import TaskAgentsService
from tasklogs_server.services.task_logs import TaskLogsService
from tasklogs_server.services.tasks import TasksService
from tasklogs_server.transport.health import Health
from tasklogs_server.transport.reflection import CHANNELZ, REFLECTION_V1, reflected_descriptors

_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_REFLECTION_V1ALPHA = reflection.SERVICE_NAME

LIVENESS = "liveness"
"""Whoever restarts what does not live asks for this one: a restart brings no database back."""

OWN_SERVICES: Sequence[ServiceDescriptor] = (
    task_logs_pb2.DESCRIPTOR.services_by_name["TaskLogs"],
    tasks_pb2.DESCRIPTOR.services_by_name["Tasks"],
    task_agents_pb2.DESCRIPTOR.services_by_name["TaskAgents"],
)


def register(
    server: grpc.aio.Server,
    *,
    task_logs: TaskLogsService,
    tasks: TasksService,
    task_agents: TaskAgentsService,
    channelz: bool = False,
) -> Health:
    """Register all services, health and reflection; return health, which begins NOT_SERVING.

    `channelz` adds grpc.channelz, which shows every caller's address to whoever may call it. Raises
    ModuleNotFoundError where the extra `telemetry` is not installed.
    """
    for descriptor, service in zip(OWN_SERVICES, (task_logs, tasks, task_agents), strict=True):
        server.add_generic_rpc_handlers([_handlers(descriptor, service)])
    servicer = Health()
    register_health(server, servicer)
    shown = [_HEALTH, *(_register_channelz(server) if channelz else ())]
    _register_reflection(server, shown)
    return servicer


def register_health(server: grpc.aio.Server, servicer: health_pb2_grpc.HealthServicer) -> None:
    """Serve health alone."""
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)


async def set_serving(servicer: Health, *, serving: bool) -> None:
    """Say how every service is, the server as a whole ('') and, always well, `LIVENESS`."""
    servicer.set(LIVENESS, serving=True)
    for name in ("", *(descriptor.full_name for descriptor in OWN_SERVICES)):
        servicer.set(name, serving=serving)


def _handlers(descriptor: ServiceDescriptor, service: object) -> grpc.GenericRpcHandler:
    # Every method of the descriptor must have its handler: a missing one fails at the start.
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        method.name: _maker(method)(
            getattr(service, _snake(method.name)),
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=_serialize,
        )
        for method in descriptor.methods
    }
    return grpc.method_handlers_generic_handler(descriptor.full_name, handlers)


def _maker(method: Any) -> Any:
    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    return kinds[method.client_streaming, method.server_streaming]


def _serialize(response: Any) -> bytes:
    # Reads answer in bytes: their entries are stored as they travel.
    return response if isinstance(response, bytes) else response.SerializeToString()


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _register_channelz(server: grpc.aio.Server) -> Sequence[str]:
    from grpc_channelz.v1 import channelz

    channelz.add_channelz_servicer(server)
    return [CHANNELZ]


def _register_reflection(server: grpc.aio.Server, others: Sequence[str]) -> None:
    names = [descriptor.full_name for descriptor in OWN_SERVICES]
    names += [*others, _REFLECTION_V1ALPHA, REFLECTION_V1]
    servicer = reflection.aio.ReflectionServicer(names, pool=reflected_descriptors(names))
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in (_REFLECTION_V1ALPHA, REFLECTION_V1):
        handlers = {"ServerReflectionInfo": handler}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, handlers)])
