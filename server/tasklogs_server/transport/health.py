"""grpc.health.v1: the health of each service, for any caller.

gRPC's own servicer writes to a watcher under a lock. The next change of health, and all other
watchers of the service, need the same lock: one watcher that does not read would stop probes and
the drain.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tasklogs_server.domain.errors import (
    FieldViolation,
    InvalidFields,
    LimitExceeded,
    ServiceUnknown,
)
from tasklogs_server.domain.limits import Limit
from tasklogs_server.middleware.failures import refuse

_pb: Any = health_pb2  # the stubs leave out List
# No service has a longer name, and a request is held for as long as its caller watches.
_MAX_REQUEST_BYTES = 256
_RETRY_AFTER = timedelta(seconds=10)

Context = grpc.aio.ServicerContext[Any, Any]


class Health(health_pb2_grpc.HealthServicer):
    """The handlers of `grpc.health.v1.Health`. A service that was never `set` is unknown."""

    def __init__(self) -> None:
        self._statuses: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._is_leaving = False

    def set(self, service: str, *, serving: bool) -> None:
        """Set the health of a service. After `leave` this changes nothing."""
        if not self._is_leaving:
            self._put(service, serving=serving)

    def leave(self) -> None:
        """Set every service to NOT_SERVING. That is final."""
        self._is_leaving = True
        for service in self._statuses:
            self._put(service, serving=False)

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> Any:
        """Return the health of a service."""
        status = self._statuses.get(request.service)
        if status is None:
            await refuse(context, ServiceUnknown())
        return _pb.HealthCheckResponse(status=status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:
        """Write the health of a service now, and at each change. An unknown service may appear."""
        if request.ByteSize() > _MAX_REQUEST_BYTES:
            await refuse(context, InvalidFields([FieldViolation("service", "is too long")]))
        said: int | None = None
        while True:
            changed = self._changed  # taken first, so that a change during the write is seen
            status = self._statuses.get(request.service, _pb.HealthCheckResponse.SERVICE_UNKNOWN)
            if status != said:
                said = status
                await context.write(_pb.HealthCheckResponse(status=status))
            await changed.wait()

    async def List(self, _: Any, __: Context) -> Any:
        """Return the health of all services."""
        return _pb.HealthListResponse(
            statuses={
                service: _pb.HealthCheckResponse(status=status)
                for service, status in self._statuses.items()
            }
        )

    def _put(self, service: str, *, serving: bool) -> None:
        response = _pb.HealthCheckResponse
        self._statuses[service] = response.SERVING if serving else response.NOT_SERVING
        # Those who wait for the old event look again. Those who look now wait for the new one.
        self._changed.set()
        self._changed = asyncio.Event()


class FewWatches(health_pb2_grpc.HealthServicer):
    """The same health, with a limit on the number of watchers.

    Watchers stay. They must not use up what probes need, which call `Check` and leave.
    """

    def __init__(self, health: Health, at_most: int) -> None:
        self._health = health
        self._at_most = at_most
        self._watches = 0

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> Any:
        """Return the health of a service."""
        return await self._health.Check(request, context)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:
        """Write the health of a service now, and at each change."""
        if self._watches >= self._at_most:
            what = f"{self._at_most} watches at once"
            await refuse(context, LimitExceeded(Limit.HEALTH_WATCHES, "server", what, _RETRY_AFTER))
        self._watches += 1
        try:
            await self._health.Watch(request, context)
        finally:
            self._watches -= 1

    async def List(self, request: Any, context: Context) -> Any:
        """Return the health of all services."""
        return await self._health.List(request, context)
