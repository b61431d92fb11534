"""grpc.health.v1: how each service is, for whoever asks.

The servicer that comes with gRPC writes to a watcher under a lock that the next change of health
needs, and all other watchers of the service: one stranger who does not read stops probes and drain.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_pb: Any = health_pb2  # the stubs leave out List
# No service has so long a name, and whoever watches is held for as long as they like.
_MAX_REQUEST_BYTES = 256

Context = grpc.aio.ServicerContext[Any, Any]


class Health(health_pb2_grpc.HealthServicer):
    """The handlers of `grpc.health.v1.Health`. A service that nothing was said of is unknown."""

    def __init__(self) -> None:
        self._statuses: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._is_leaving = False

    def set(self, service: str, *, serving: bool) -> None:
        """Say how a service is; nothing changes any more after `leave`."""
        if not self._is_leaving:
            self._put(service, serving=serving)

    def leave(self) -> None:
        """Say of every service, and for good, that it does not serve."""
        self._is_leaving = True
        for service in self._statuses:
            self._put(service, serving=False)

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> Any:
        """Say how a service is now."""
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service")
        return _pb.HealthCheckResponse(status=status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:
        """Say how a service is, and again with each change; unknown ones may come to be."""
        if request.ByteSize() > _MAX_REQUEST_BYTES:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no service has such a name")
        said: int | None = None
        while True:
            changed = self._changed  # before the look: what changes during the write is seen
            status = self._statuses.get(request.service, _pb.HealthCheckResponse.SERVICE_UNKNOWN)
            if status != said:
                said = status
                await context.write(_pb.HealthCheckResponse(status=status))
            await changed.wait()

    async def List(self, _: Any, __: Context) -> Any:
        """Say how all services are now."""
        return _pb.HealthListResponse(
            statuses={
                service: _pb.HealthCheckResponse(status=status)
                for service, status in self._statuses.items()
            }
        )

    def _put(self, service: str, *, serving: bool) -> None:
        response = _pb.HealthCheckResponse
        self._statuses[service] = response.SERVING if serving else response.NOT_SERVING
        # Whoever waits for the old event looks again; those who look now wait for the next.
        self._changed.set()
        self._changed = asyncio.Event()


class FewWatches(health_pb2_grpc.HealthServicer):
    """The same health, of which only so many may be watched at the same time.

    Probes ask and go; a stranger who watches must not keep them from it.
    """

    def __init__(self, health: Health, at_most: int) -> None:
        self._health = health
        self._at_most = at_most
        self._watches = 0

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> Any:
        """Say how a service is now."""
        return await self._health.Check(request, context)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:
        """Say how a service is, and again with each change."""
        if self._watches >= self._at_most:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watch already")
        self._watches += 1
        try:
            await self._health.Watch(request, context)
        finally:
            self._watches -= 1

    async def List(self, request: Any, context: Context) -> Any:
        """Say how all services are now."""
        return await self._health.List(request, context)
