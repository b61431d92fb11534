"""RPC handlers: the function in one, and a handler made of another function."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

import grpc

from tasklogs_server.domain.caller import Caller

Call: TypeAlias = "asyncio.Task[Any]"
"""gRPC's task for one RPC. It ends when the response is sent, or given up."""
Context = grpc.aio.ServicerContext[Any, Any]
MethodHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Handler = Callable[..., Any]


def function_of(handler: Any) -> Handler:
    """Return the function of a handler of any of the four kinds."""
    function: Handler = (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )
    return function


def of_raw_messages(handler: MethodHandler, function: Handler) -> MethodHandler:
    """Return a handler whose `function` gets the requests as a stream of bytes.

    It returns its one response as bytes, or writes a stream of what `handler` writes. All requests
    are streams to gRPC then, so that a call begins when its headers are there: gRPC waits for the
    message of a unary call without a limit, and does so for unauthenticated callers too.
    """
    if handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(
            function, request_deserializer=None, response_serializer=handler.response_serializer
        )
    return grpc.stream_unary_rpc_method_handler(
        function, request_deserializer=None, response_serializer=None
    )


def with_function(handler: MethodHandler, function: Handler) -> MethodHandler:
    """Return the same handler with another function, which is a coroutine function."""
    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    untyped: Any = handler
    make: Any = kinds[untyped.request_streaming, untyped.response_streaming]
    made: MethodHandler = make(
        function,
        request_deserializer=untyped.request_deserializer,
        response_serializer=untyped.response_serializer,
    )
    return made


def writing(generator: Handler) -> Handler:
    """Return a coroutine function that writes what an asynchronous generator yields.

    gRPC abandons a generator whose caller leaves, and its cleanup runs at any later time. Here it
    is closed before the call ends.
    """

    async def write_all(request: Any, context: Context, *caller: Caller | None) -> None:
        responses = generator(request, context, *caller)
        try:
            async for response in responses:
                await context.write(response)
        except BaseException:
            await _close(responses)
            raise

    return write_all


async def _close(responses: Any) -> None:
    """Close a generator, to the end of its cleanup.

    When a caller leaves, a write fails first. gRPC cancels the call a little later, perhaps during
    the cleanup. The cancellation must not cut the cleanup off.
    """
    closing = asyncio.create_task(responses.aclose())
    try:
        await asyncio.shield(closing)
    except asyncio.CancelledError:
        await asyncio.wait([closing])
        raise


def without_caller(function: Handler) -> Handler:
    """Return a handler's function that takes a caller, and calls `function` without it."""
    return lambda request, context, _: function(request, context)
