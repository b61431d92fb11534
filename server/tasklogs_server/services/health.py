"""grpc.health.v1 as strangers may call it: within bounds."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

_SERVICE_CHARACTERS = 200


class Health(health.aio.HealthServicer):
    """Answers for short names only: who watches has his name kept, known or not."""

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        """Send the service's health, and each change of it."""
        if len(request.service) > _SERVICE_CHARACTERS:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no service has a name that long")
        await super().Watch(request, context)


class FewWatches(health_pb2_grpc.HealthServicer):
    """The same health, of which only so many may be watched at the same time.

    Probes ask and go; a stranger who watches must not keep them from it.
    """

    def __init__(self, health_: health.aio.HealthServicer, at_most: int) -> None:
        self._health = health_
        self._at_most = at_most
        self._watches = 0

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> Any:
        """Send the service's health."""
        return await self._health.Check(request, context)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        """Send the service's health, and each change of it."""
        if self._watches >= self._at_most:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watch already")
        self._watches += 1
        try:
            await self._health.Watch(request, context)
        finally:
            self._watches -= 1
