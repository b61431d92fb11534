"""Streams of libraries' services, and the unread responses of other callers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, cast

import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse

from tasklogs_server.domain.caller import LOCAL, Caller
from tasklogs_server.domain.errors import LimitExceeded
from tasklogs_server.middleware.handlers import Context
from tasklogs_server.middleware.operations import OperationContext
from tasklogs_server.middleware.responses import Responses

LIMIT_BYTES = 1000
HEALTHY = HealthCheckResponse(status=HealthCheckResponse.SERVING)


class Peer:
    """A context that keeps what is written to it."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def peer(self) -> str:
        return "ipv4:192.0.2.1:1"

    async def send_initial_metadata(self, _: Any) -> None:
        pass

    async def write(self, message: Any) -> None:
        self.messages.append(message)


@asynccontextmanager
async def all_bytes_are_unread() -> AsyncIterator[Responses]:
    """Lend responses of which callers have just got as many as all may leave unread."""
    responses = Responses(LIMIT_BYTES, timedelta(hours=1), reset=lambda _: None)
    calls = [asyncio.create_task(asyncio.Event().wait()) for _ in range(3)]
    for number, call in enumerate(calls):
        responses.began(cast("Any", call), f"caller {number}", LIMIT_BYTES * 4 // 10)
    try:
        yield responses
    finally:
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)


async def written(responses: Responses, caller: Caller | None) -> list[Any]:
    """Write a message to a caller's stream; return what came of it."""
    peer = Peer()

    async def call() -> None:
        task = cast("Any", asyncio.current_task())
        await OperationContext(cast("Context", peer), task, caller, responses).write(HEALTHY)

    await asyncio.create_task(call())
    return peer.messages


async def test_health_is_told_whatever_others_leave_unread() -> None:
    async with all_bytes_are_unread() as responses:
        assert await written(responses, None) == [HEALTHY]


async def test_a_user_is_refused_while_too_many_bytes_are_unread() -> None:
    async with all_bytes_are_unread() as responses:
        with pytest.raises(LimitExceeded, match="of unread responses"):
            await written(responses, LOCAL)
