"""Tells telemetry of every call: the outermost interceptor, present only if telemetry is on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import grpc

from tasklogs_server.middleware.failures import UNKNOWN_METHOD
from tasklogs_server.middleware.handlers import Context, MethodHandler, function_of, with_function
from tasklogs_server.telemetry.calls import Call, current
from tasklogs_server.telemetry.observer import Observer

_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}

_Handler = Callable[[Any, Context], Any]


class CallObserver(grpc.aio.ServerInterceptor):
    """Wraps what `CallInterceptor` returns: coroutine functions, for all four kinds of RPC."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._wrapped: dict[str, MethodHandler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[MethodHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> MethodHandler | None:
        """Return the method's handler, wrapped. It is wrapped once: handlers do not change."""
        method = str(handler_call_details.method)
        # A call's handler runs in the task that looked it up. The metadata is read here: to ask the
        # context for it again costs a tenth of a small read.
        Call(method, handler_call_details.invocation_metadata).make_current()
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None or handler is UNKNOWN_METHOD:
                self._observer.unknown_method()
                return handler
            wrapped = self._wrapped[method] = with_function(
                handler, self._observed(function_of(handler))
            )
        return wrapped

    def _observed(self, inner: _Handler) -> _Handler:
        observer = self._observer

        async def handle(request: Any, context: Context) -> Any:
            call = current()
            assert call is not None
            observer.began(call)
            try:
                response = await inner(request, context)
            except BaseException as error:
                observer.ended(call, _code_of(error, context))
                raise
            _end_when_sent(observer, call, context)
            return response

        return handle


def _end_when_sent(observer: Observer, call: Call, context: Context) -> None:
    """Report the end when the response is sent or given up: that is when gRPC's task ends."""
    task, code = asyncio.current_task(), _chosen(context)
    assert task is not None

    def tell(task: asyncio.Task[Any]) -> None:
        # gRPC swallows the cancellation: nothing else says that the caller left now.
        observer.ended(call, "CANCELLED" if task.cancelling() else code)

    task.add_done_callback(tell)


def _code_of(error: BaseException, context: Context) -> str:
    if isinstance(error, asyncio.CancelledError):
        left = cast("float | None", context.time_remaining())
        return "DEADLINE_EXCEEDED" if left is not None and left <= 0 else "CANCELLED"
    if isinstance(error, grpc.aio.AbortError):
        return _chosen(context)
    return "UNKNOWN"  # what gRPC sends for an exception that nothing has caught


def _chosen(context: Context) -> str:
    code: Any = context.code()
    if code is None:
        return "OK"
    return _NAMES.get(code, "OK") if isinstance(code, int) else getattr(code, "name", "OK")
