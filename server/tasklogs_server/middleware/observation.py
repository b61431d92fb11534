"""Tells telemetry of every call: the outermost interceptor, there only where telemetry is on."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, cast

import grpc

from tasklogs_server.middleware.handlers import Context, MethodHandler, shape_of
from tasklogs_server.telemetry.calls import Call
from tasklogs_server.telemetry.observer import Observer

_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}

_Handler = Callable[[Any, Context], Any]


class CallObserver(grpc.aio.ServerInterceptor):
    """Wraps the handlers of all four kinds of RPC, and those of the interceptors after it."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._wrapped: dict[str, MethodHandler] = {}
        # A call's handler runs in the task that looked it up, and the metadata is at hand here
        # only: asking the context for it again costs a tenth of a small read.
        self._arrived: ContextVar[Call] = ContextVar("tasklogs_arrived_call")

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[MethodHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> MethodHandler | None:
        """Return the method's handler, wrapped once: a server's handlers stay what they are."""
        method = str(handler_call_details.method)
        self._arrived.set(Call(method, handler_call_details.invocation_metadata or ()))
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                self._observer.unknown_method()
                return None
            wrapped = self._wrapped[method] = self._wrap(handler)
        return wrapped

    def _wrap(self, handler: MethodHandler) -> MethodHandler:
        inner, make = shape_of(handler)
        wrap = self._yielding if inspect.isasyncgenfunction(inner) else self._returning
        return make(
            wrap(inner),
            request_deserializer=cast("Any", handler).request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _returning(self, inner: _Handler) -> _Handler:
        observer, arrived = self._observer, self._arrived

        async def handle(request: Any, context: Context) -> Any:
            call = arrived.get()
            observer.began(call)
            try:
                response = await inner(request, context)
            except BaseException as error:
                observer.ended(call, _code_of(error, context))
                raise
            _ends_when_taken(observer, call, context)
            return response

        return handle

    def _yielding(self, inner: _Handler) -> _Handler:
        observer, arrived = self._observer, self._arrived

        async def handle(request: Any, context: Context) -> AsyncIterator[Any]:
            call = arrived.get()
            observer.began(call)
            try:
                async with aclosing(inner(request, context)) as responses:
                    async for response in responses:
                        yield response
            except BaseException as error:
                observer.ended(call, _code_of(error, context))
                raise
            _ends_when_taken(observer, call, context)

        return handle


def _ends_when_taken(observer: Observer, call: Call, context: Context) -> None:
    """Tell of the end when the answer is taken or given up; that is when gRPC's task ends."""
    task, code = asyncio.current_task(), _chosen(context)
    assert task is not None

    def tell(task: asyncio.Task[Any]) -> None:
        # gRPC swallows the cancellation. A caller who leaves now is not told of to anyone.
        observer.ended(call, "CANCELLED" if task.cancelling() else code)

    task.add_done_callback(tell)


def _code_of(error: BaseException, context: Context) -> str:
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        left = cast("float | None", context.time_remaining())
        return "DEADLINE_EXCEEDED" if left is not None and left <= 0 else "CANCELLED"
    if isinstance(error, grpc.aio.AbortError):
        return _chosen(context)
    return "UNKNOWN"  # what grpc makes of an exception that nobody caught


def _chosen(context: Context) -> str:
    code: Any = context.code()
    return _NAMES.get(code, "OK") if isinstance(code, int) else getattr(code, "name", "OK")
