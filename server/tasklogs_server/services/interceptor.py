"""The one exit of all failed calls: domain errors become status and details, all else INTERNAL."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import grpc
import structlog
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from tasklogs_server.domain.errors import TaskLogsError
from tasklogs_server.services.errors import INTERNAL, status_of

_log = structlog.get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
MethodHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Handler = Callable[[Any, Context], Any]


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handlers of all four kinds of RPC, and knows which calls are under way.

    grpc.aio would send an unhandled exception's text to the caller, and its `stop` returns before
    the handlers' cleanup has run.
    """

    def __init__(self) -> None:
        self._calls: set[asyncio.Task[Any]] = set()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[MethodHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> MethodHandler | None:
        """Return the method's handler, wrapped."""
        handler = await continuation(handler_call_details)
        if handler is None:  # no such method: grpc answers UNIMPLEMENTED
            return handler
        inner, make = _kind_of(handler)
        wrap = self._yielding if inspect.isasyncgenfunction(inner) else self._returning
        return make(
            wrap(inner, str(handler_call_details.method)),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    async def finished(self) -> None:
        """Wait until the handlers of all calls have run to their end."""
        while self._calls:
            await asyncio.wait(self._calls)

    def _returning(self, inner: _Handler, method: str) -> _Handler:
        async def handle(request: Any, context: Context) -> Any:
            with self._tracked():
                try:
                    return await inner(request, context)
                except Exception as error:
                    status = _status_of(error, method)
                return await context.abort_with_status(rpc_status.to_status(status))

        return handle

    def _yielding(self, inner: _Handler, method: str) -> _Handler:
        async def handle(request: Any, context: Context) -> AsyncIterator[Any]:
            with self._tracked():
                try:
                    async for response in inner(request, context):
                        yield response
                    return
                except Exception as error:
                    status = _status_of(error, method)
                await context.abort_with_status(rpc_status.to_status(status))

        return handle

    @contextmanager
    def _tracked(self) -> Iterator[None]:
        call = asyncio.current_task()
        assert call is not None
        self._calls.add(call)
        try:
            yield
        finally:
            self._calls.discard(call)


def _status_of(error: Exception, method: str) -> Status:
    # AbortError is an Exception: a status that was chosen already goes through.
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, TaskLogsError):
        return status_of(error)
    _log.error("rpc.failed", method=method, exc_info=error)
    return INTERNAL


def _kind_of(handler: Any) -> tuple[_Handler, Callable[..., MethodHandler]]:
    if handler.request_streaming and handler.response_streaming:
        return handler.stream_stream, grpc.stream_stream_rpc_method_handler
    if handler.request_streaming:
        return handler.stream_unary, grpc.stream_unary_rpc_method_handler
    if handler.response_streaming:
        return handler.unary_stream, grpc.unary_stream_rpc_method_handler
    return handler.unary_unary, grpc.unary_unary_rpc_method_handler
