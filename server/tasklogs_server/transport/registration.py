"""One function that registers every service on a server, and the list of the services."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from tasklogs.v1 import task_agents_pb2, task_logs_pb2, tasks_pb2
from tasklogs_server.middleware.handlers import MethodHandler
from tasklogs_server.middleware.methods import OWN_QUEUES, without_row
from tasklogs_server.process.lifecycle import StartupError
from tasklogs_server.services.task_agents import TaskAgentsService
from tasklogs_server.services.task_logs import TaskLogsService
from tasklogs_server.services.tasks import TasksService
from tasklogs_server.transport import call_acceptor
from tasklogs_server.transport.health import Health
from tasklogs_server.transport.reflection import CHANNELZ, REFLECTION_V1, Reflection

_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_REFLECTION_V1ALPHA = reflection.SERVICE_NAME

LIVENESS = "liveness"
"""For liveness probes: it serves while the process runs, since a restart repairs no database."""

OWN_SERVICES: Sequence[ServiceDescriptor] = (
    task_logs_pb2.DESCRIPTOR.services_by_name["TaskLogs"],
    tasks_pb2.DESCRIPTOR.services_by_name["Tasks"],
    task_agents_pb2.DESCRIPTOR.services_by_name["TaskAgents"],
)


@dataclass(frozen=True, slots=True)
class Registered:
    """What was registered on a server."""

    health: Health
    """It begins NOT_SERVING."""
    handlers: Mapping[str, MethodHandler]
    """The handlers of the methods with a queue of their own, by the whole names of the methods."""


def register(
    server: grpc.aio.Server,
    *,
    task_logs: TaskLogsService,
    tasks: TasksService,
    task_agents: TaskAgentsService,
    channelz: bool = False,
) -> Registered:
    """Register all services, health and reflection.

    `channelz` adds grpc.channelz, which shows every caller's address to admins. Raises
    ModuleNotFoundError if the extra `telemetry` is not installed, and StartupError if a method has
    no row in `middleware/methods.py`.
    """
    registry = _Registry(server)
    recorded = cast("grpc.aio.Server", registry)
    for descriptor, service in zip(OWN_SERVICES, (task_logs, tasks, task_agents), strict=True):
        registry.add(descriptor.full_name, _handlers(descriptor, service))
    servicer = Health()
    register_health(recorded, servicer)
    shown = [_HEALTH, *(_register_channelz(recorded) if channelz else ())]
    _register_reflection(registry, shown)
    for name in without_row(registry.methods):
        raise StartupError(
            f"{name} is registered and has no row in tasklogs_server/middleware/methods.py:"
            " add one that says who may call it"
        )
    return Registered(servicer, registry.handlers)


class _Registry:
    """Registers handlers on a server, and keeps the names of their methods.

    It has the two methods of a server that generated code calls.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server
        self.methods: set[str] = set()
        self.handlers: dict[str, MethodHandler] = {}
        """See `Registered`."""

    def add(self, service: str, handlers: Mapping[str, MethodHandler]) -> None:
        """Register a service."""
        generic = grpc.method_handlers_generic_handler(service, dict(handlers))
        self.add_generic_rpc_handlers([generic])
        self.add_registered_method_handlers(service, handlers)

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Register the handlers of a service. The next call names their methods."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, MethodHandler]
    ) -> None:
        """Name the methods of handlers.

        gRPC makes a queue for each method that it is told. If grpc.aio itself accepts their calls,
        it waits for the next one of each queue: with all methods, a read took 12 % more CPU (grpcio
        1.85). So it is told those that CallAcceptor accepts.
        """
        named = {f"/{service}/{name}": (name, handler) for name, handler in handlers.items()}
        self.methods |= named.keys()
        if call_acceptor.is_possible():
            own = {path: one for path, one in named.items() if path in OWN_QUEUES}
            self.handlers |= {path: handler for path, (_, handler) in own.items()}
            self._server.add_registered_method_handlers(service, dict(own.values()))


def register_health(server: grpc.aio.Server, servicer: health_pb2_grpc.HealthServicer) -> None:
    """Register health."""
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)


async def set_serving(servicer: Health, *, serving: bool) -> None:
    """Set the health of all services and of the whole server (''). `LIVENESS` always serves."""
    servicer.set(LIVENESS, serving=True)
    for name in ("", *(descriptor.full_name for descriptor in OWN_SERVICES)):
        servicer.set(name, serving=serving)


def _handlers(descriptor: ServiceDescriptor, service: object) -> Mapping[str, MethodHandler]:
    # Every method of the descriptor must have its handler: a missing one fails at start.
    return {
        method.name: _maker(method)(
            getattr(service, _snake(method.name)),
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=_serializer(method),
        )
        for method in descriptor.methods
    }


def _maker(method: Any) -> Any:
    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    return kinds[method.client_streaming, method.server_streaming]


def _serializer(method: Any) -> Any:
    # Streams write bytes. A unary handler may return bytes too, which the middleware lets through:
    # reads send entries as they are stored.
    return (
        None if method.server_streaming else GetMessageClass(method.output_type).SerializeToString
    )


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _register_channelz(server: grpc.aio.Server) -> Sequence[str]:
    from grpc_channelz.v1 import channelz, channelz_pb2_grpc

    channelz_pb2_grpc.add_ChannelzServicer_to_server(channelz.aio.ChannelzServicer(), server)
    return [CHANNELZ]


def _register_reflection(registry: _Registry, others: Sequence[str]) -> None:
    names = [descriptor.full_name for descriptor in OWN_SERVICES]
    names += [*others, _REFLECTION_V1ALPHA, REFLECTION_V1]
    servicer = Reflection(names)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in (_REFLECTION_V1ALPHA, REFLECTION_V1):
        registry.add(name, {"ServerReflectionInfo": handler})
