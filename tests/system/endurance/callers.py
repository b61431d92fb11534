"""Who calls, and one call of each of the four kinds of RPC. Each returns the name of its status."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from tasklogs.publish.stream_status import StreamStatus

CALL_SECONDS = 60.0
OK = "OK"


class Who(Enum):
    """Whose credentials a call has."""

    NOBODY = auto()
    OWNER = auto()
    OTHER = auto()
    """A user who owns nothing."""
    ADMIN = auto()
    AGENT = auto()
    """The agent of the uploaded task."""


@dataclass
class Callers:
    """Connections, used in turn, and the credentials of everyone."""

    channels: Sequence[grpc.aio.Channel]
    tokens: dict[Who, str]

    def __post_init__(self) -> None:
        self._in_turn = itertools.cycle(self.channels)

    @property
    def channel(self) -> Any:
        return next(self._in_turn)

    def metadata(self, who: Who) -> tuple[tuple[str, str], ...]:
        if who is Who.NOBODY:
            return ()
        return bearing(self.tokens[who])

    async def unary(self, path: str, request: bytes | Message, who: Who) -> tuple[str, bytes]:
        """Make a unary call. Return its status and the encoded response."""
        method = self.channel.unary_unary(path)
        try:
            answer: bytes = await method(
                encoded(request), metadata=self.metadata(who), timeout=CALL_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            return error.code().name, b""
        return OK, answer

    async def server_stream(
        self, path: str, request: bytes | Message, who: Who, is_last: Callable[[bytes], bool]
    ) -> str:
        """Read a stream until `is_last`, then leave. Return "OK" if that message came."""
        method = self.channel.unary_stream(path)
        call = method(encoded(request), metadata=self.metadata(who), timeout=CALL_SECONDS)
        try:
            while isinstance(message := await call.read(), bytes):
                if is_last(message):
                    return OK
        except grpc.aio.AioRpcError as error:
            return error.code().name
        finally:
            call.cancel()
        return "ended early"

    async def client_stream(self, path: str, requests: Sequence[bytes | Message], who: Who) -> str:
        """Send some messages. Return the status."""
        method = self.channel.stream_unary(path)
        call = method(metadata=self.metadata(who), timeout=CALL_SECONDS)
        return await _status(call, requests)

    async def both_streams(self, path: str, requests: Sequence[bytes | Message], who: Who) -> str:
        """Send some messages and read to the end. Return the status."""
        method = self.channel.stream_stream(path)
        call = method(metadata=self.metadata(who), timeout=CALL_SECONDS)
        return await _status(call, requests, read=call.read)


async def _status(
    call: Any,
    requests: Sequence[bytes | Message],
    *,
    read: Callable[[], Awaitable[object]] | None = None,
) -> str:
    """Send `requests`, `read` to the end, and return the status that the server ended it with."""
    status = StreamStatus(call)
    # A write or read that comes after the server's refusal raises something else than it said.
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        for request in requests:
            await call.write(encoded(request))
        await call.done_writing()
        while read is not None and isinstance(await read(), bytes):
            pass
    await call.code()
    return (await status.at_the_end()).code().name


def encoded(request: bytes | Message) -> bytes:
    return request if isinstance(request, bytes) else request.SerializeToString()


def bearing(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)
