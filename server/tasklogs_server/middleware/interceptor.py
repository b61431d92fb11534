"""The way of every call: let in, its request taken, given a place, handled, answered or refused."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from datetime import timedelta
from typing import Any, TypeAlias

import grpc
from google.rpc.status_pb2 import Status

from tasklogs_server.domain.caller import Caller
from tasklogs_server.limits.admission import Admission, Kind, kind_of
from tasklogs_server.middleware.arrivals import Arrivals
from tasklogs_server.middleware.authentication import Admit
from tasklogs_server.middleware.deadlines import within
from tasklogs_server.middleware.error_table import status_of
from tasklogs_server.middleware.expiry import until_the_token_ends
from tasklogs_server.middleware.failures import Failures, abort
from tasklogs_server.middleware.handlers import (
    Context,
    Handler,
    MethodHandler,
    is_of_the_api,
    of_raw_requests,
    shape_of,
)
from tasklogs_server.middleware.open_calls import OpenCalls
from tasklogs_server.middleware.requests import taking
from tasklogs_server.middleware.responses import Sending, recipient_of, size_of

_Call: TypeAlias = "asyncio.Task[Any]"
_Begin: TypeAlias = "Callable[[_Call, AsyncIterator[bytes], Context], Awaitable[tuple[Any, Any]]]"


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handlers of all four kinds of RPC."""

    def __init__(
        self,
        access: Callable[[str], Admit],
        *,
        calls: OpenCalls,
        admission: Admission,
        arrivals: Arrivals,
        sending: Sending,
        failures: Failures,
        default_deadline: timedelta,
    ) -> None:
        """`access` says for each method who may call it; `default_deadline` is for unary calls."""
        self._access = access
        self._calls = calls
        self._admission = admission
        self._arrivals = arrivals
        self._sending = sending
        self._failures = failures
        self._default_deadline = default_deadline
        self._wrapped: dict[str, MethodHandler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[MethodHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> MethodHandler | None:
        """Return the method's handler, wrapped once: a server's handlers stay what they are."""
        method = str(handler_call_details.method)
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:  # no such method: grpc answers UNIMPLEMENTED
                return None
            wrapped = self._wrapped[method] = self._wrap(handler, method)
        return wrapped

    def _wrap(self, handler: MethodHandler, method: str) -> MethodHandler:
        inner, _ = shape_of(handler)
        wrap = self._yielding if inspect.isasyncgenfunction(inner) else self._returning
        inner = _with_caller(inner, method)
        if not handler.request_streaming and not handler.response_streaming:
            inner = within(self._default_deadline, inner)
        return of_raw_requests(handler, wrap(inner, self._beginning(handler, method), method))

    def _beginning(self, handler: MethodHandler, method: str) -> _Begin:
        """Return what lets a call in and takes what it asks for: the request, and who calls."""
        access, take = self._access(method), taking(handler, self._arrivals)
        may_be_refused = is_of_the_api(method)

        async def begin(
            call: _Call, requests: AsyncIterator[bytes], context: Context
        ) -> tuple[Any, Caller | None]:
            if may_be_refused:
                self._calls.check()
            caller = await access(context)
            return await take(call, requests, context), caller

        return begin

    def _returning(self, inner: Handler, begin: _Begin, method: str) -> Handler:
        of_the_api, place = is_of_the_api(method), self._place(method)
        # Streams have bounds of their own, and agents must not wait for readers who do not read.
        is_bounded = of_the_api and kind_of(method) in (Kind.READ, Kind.WRITE)
        is_read = kind_of(method) is Kind.READ

        async def handle(requests: AsyncIterator[bytes], context: Context) -> Any:
            with self._calls.handling(is_of_the_api=of_the_api) as call:
                try:
                    request, caller = await begin(call, requests, context)
                    recipient = recipient_of(caller, context) if is_bounded else None
                    if is_bounded:
                        self._sending.check(recipient)
                    async with place:
                        answer = await inner(request, context, caller)
                    if is_read:
                        # Thousands may have queued before anyone was answered. What a change did
                        # is told, whatever it takes.
                        self._sending.check(recipient)
                    self._sending.began(call, recipient, size_of(answer))
                    return answer
                except (Exception, asyncio.CancelledError) as error:
                    status = self._status_of(error, call, method)
                return await self._abort(call, context, status)

        return handle

    def _yielding(self, inner: Handler, begin: _Begin, method: str) -> Handler:
        of_the_api, place = is_of_the_api(method), self._place(method)

        async def handle(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
            with self._calls.handling(is_of_the_api=of_the_api) as call:
                try:
                    request, caller = await begin(call, requests, context)
                    # Closed with the call: an abandoned generator's cleanup runs whenever.
                    async with place, aclosing(inner(request, context, caller)) as responses:
                        async for response in responses:
                            yield response
                    self._sending.began(call, None, 0)
                    return
                except (Exception, asyncio.CancelledError) as error:
                    status = self._status_of(error, call, method)
                await self._abort(call, context, status)

        return handle

    def _place(self, method: str) -> AbstractAsyncContextManager[None]:
        """Return what a call holds while it is handled.

        Not before its request is there, nor while its answer is on the way: strangers, and who does
        not say what he wants or does not take it, must not hold what callers wait for.
        """
        return self._admission.place(kind_of(method)) if is_of_the_api(method) else nullcontext()

    def _status_of(
        self, error: Exception | asyncio.CancelledError, call: _Call, method: str
    ) -> Status:
        if isinstance(error, Exception):
            return self._failures.status_of(error, method)
        end = self._calls.end_of(call)
        if end is None:
            raise error
        return status_of(end)

    async def _abort(self, call: _Call, context: Context, status: Status) -> None:
        # Behind messages that nobody takes the status would wait for ever.
        self._sending.began(call, None, 0)
        await abort(context, status)


def _with_caller(inner: Handler, method: str) -> Handler:
    """Return a handler that takes the caller; those of health and reflection do not know of one."""
    if is_of_the_api(method):
        return inner
    if inspect.isasyncgenfunction(inner):
        return until_the_token_ends(inner)
    return lambda request, context, _: inner(request, context)
