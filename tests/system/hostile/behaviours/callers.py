"""Clients with a valid token, by a gRPC library. Their requests are encoded beforehand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio

from tasklogs.publish.stream_status import StreamStatus
from tests.system.hostile.peer import Tally
from tests.system.hostile.target import Target

_CALL_SECONDS = 30.0


@dataclass(frozen=True)
class Request:
    """One unary call."""

    path: str
    encoded: bytes
    token: str | None
    seconds: float = _CALL_SECONDS
    """Its deadline."""


Calling: TypeAlias = "Callable[[grpc.aio.Channel], Awaitable[None]]"


def metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    return () if token is None else (("authorization", f"Bearer {token}"),)


class Stream:
    """A stream of messages that are encoded. It counts how it ended."""

    def __init__(self, call: Any, tally: Tally) -> None:
        self.call = call
        self._status = StreamStatus(call)
        self._tally = tally

    async def write(self, message: bytes) -> None:
        self._tally.sent += 1
        self._tally.sent_bytes += len(message)
        await self.call.write(message)
        await self._tally.pace.keep()

    async def note_end(self) -> None:
        """Wait until it has ended, and count the server's status."""
        await self.call.code()
        self._tally.ends[(await self._status.at_the_end()).code().name] += 1


LOST = (grpc.aio.AioRpcError, asyncio.InvalidStateError)
"""The errors of a write or read after the end of its stream."""


@asynccontextmanager
async def dialled(target: Target, tally: Tally) -> AsyncIterator[grpc.aio.Channel]:
    """Open a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    address = f"localhost:{target.port}"
    if target.ca is None:
        channel = grpc.aio.insecure_channel(address, options=options)
    else:
        credentials = grpc.ssl_channel_credentials(Path(target.ca).read_bytes())
        channel = grpc.aio.secure_channel(address, credentials, options=options)
    async with channel:
        tally.opened += 1
        tally.held.add(channel)
        try:
            yield channel
        finally:
            tally.held.discard(channel)


async def call(channel: grpc.aio.Channel, request: Request, tally: Tally) -> bytes | None:
    """Make one call, and count how it ended. Return the response, None if there is none."""
    await tally.pace.keep()
    tally.sent += 1
    tally.sent_bytes += len(request.encoded)
    method: Any = channel.unary_unary(request.path)
    calling = method(request.encoded, metadata=metadata(request.token), timeout=request.seconds)
    try:
        answer: bytes = await calling
    except grpc.aio.AioRpcError as error:
        tally.ends[error.code().name] += 1
        return None
    tally.ends["OK"] += 1
    return answer


async def in_turn(
    target: Target, tally: Tally, requests: Sequence[Request], *, connections: int, at_once: int
) -> None:
    """Repeat these calls in turn, on some connections and with some calls at a time on each."""

    async def repeat(channel: grpc.aio.Channel) -> None:
        while True:
            for request in requests:
                await call(channel, request, tally)

    await by_clients(target, tally, repeat, connections=connections, at_once=at_once)


async def by_clients(
    target: Target, tally: Tally, calling: Calling, *, connections: int, at_once: int
) -> None:
    """Run `calling` this often at a time on each connection."""

    async def connection() -> None:
        async with dialled(target, tally) as channel, asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(_run(calling, channel))

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(connection())


async def _run(calling: Calling, channel: grpc.aio.Channel) -> None:
    await calling(channel)
