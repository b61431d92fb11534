"""RPC handlers: the function in them, and the handler that is made of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import grpc

from tasklogs_server.middleware.error_table import DOMAIN

Context = grpc.aio.ServicerContext[Any, Any]
MethodHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Handler = Callable[..., Any]


def is_of_the_api(method: str) -> bool:
    """Whether it is one of ours, and not of health, reflection or channelz."""
    return method.startswith(f"/{DOMAIN}.")


def shape_of(handler: Any) -> tuple[Handler, Callable[..., MethodHandler]]:
    """Return a handler's function, and what makes a handler of its kind."""
    if handler.request_streaming and handler.response_streaming:
        return handler.stream_stream, grpc.stream_stream_rpc_method_handler
    if handler.request_streaming:
        return handler.stream_unary, grpc.stream_unary_rpc_method_handler
    if handler.response_streaming:
        return handler.unary_stream, grpc.unary_stream_rpc_method_handler
    return handler.unary_unary, grpc.unary_unary_rpc_method_handler


def of_raw_requests(handler: MethodHandler, function: Handler) -> MethodHandler:
    """Return a handler whose function is given all requests, as bytes, and answers like `handler`.

    To gRPC all requests are streams then, so that we have a call as soon as its headers are there:
    of a single message it would wait for ever, and for that of a stranger too.
    """
    make = (
        grpc.stream_stream_rpc_method_handler
        if handler.response_streaming
        else grpc.stream_unary_rpc_method_handler
    )
    return make(
        function, request_deserializer=None, response_serializer=handler.response_serializer
    )
