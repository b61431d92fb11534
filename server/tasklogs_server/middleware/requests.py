"""What a handler wants of its call: the one request, or all of them as they come.

They come in as bytes and are decoded here, not by gRPC: what cannot be decoded fails by the exit of
all failed calls, and only whoever may call has it done.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

from google.protobuf.message import DecodeError

from tasklogs_server.domain.errors import FieldViolation, InvalidFields
from tasklogs_server.middleware.arrivals import Arrivals
from tasklogs_server.middleware.handlers import Context

_Call: TypeAlias = "asyncio.Task[Any]"
_Decode = Callable[[bytes], Any]
Take: TypeAlias = "Callable[[_Call, AsyncIterator[bytes], Context], Awaitable[Any]]"


def taking(handler: Any, arrivals: Arrivals) -> Take:
    """Return what takes of a call what its handler wants. Raises InvalidFields, RequestTooSlow."""
    decode = _decoding(handler)

    async def take_one(call: _Call, _: AsyncIterator[bytes], context: Context) -> Any:
        return decode(await arrivals.message(call, context))

    async def take_all(_: _Call, requests: AsyncIterator[bytes], __: Context) -> Any:
        return _Decoded(requests, decode)

    return take_all if handler.request_streaming else take_one


class _Decoded:
    """A stream of requests, each decoded when it is taken."""

    def __init__(self, requests: AsyncIterator[bytes], decode: _Decode) -> None:
        self._requests = requests
        self._decode = decode

    def __aiter__(self) -> _Decoded:
        return self

    async def __anext__(self) -> Any:
        return self._decode(await anext(self._requests))


def _decoding(handler: Any) -> _Decode:
    """Return what makes a message that the handler takes of its bytes."""
    deserializer: _Decode = handler.request_deserializer

    def decode(raw: bytes) -> Any:
        try:
            return deserializer(raw)
        except DecodeError:  # malformed, text that is no UTF-8, or nested too deep
            violation = FieldViolation("request", "cannot be decoded as a message of its type")
            raise InvalidFields([violation]) from None

    return decode
