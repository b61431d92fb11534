"""The one exit of all failed calls: domain errors become status and details, all else INTERNAL."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from tasklogs_server.domain.errors import FieldViolation, InvalidFields, TaskLogsError
from tasklogs_server.services.access import Admit
from tasklogs_server.services.admission import Admission, Kind, kind_of
from tasklogs_server.services.deadlines import within
from tasklogs_server.services.errors import DOMAIN, INTERNAL, status_of
from tasklogs_server.services.expiry import until_the_token_ends
from tasklogs_server.services.tracebacks import traceback_of

_log = structlog.get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
MethodHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Handler = Callable[..., Any]
_Decode = Callable[[Any], Any]
_Call: TypeAlias = "asyncio.Task[Any]"


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handlers of all four kinds of RPC, and knows which calls are under way.

    grpc.aio would send an unhandled exception's text to the caller, also that of a request that
    cannot be decoded, and its `stop` returns before the handlers' cleanup has run.
    """

    def __init__(
        self,
        access: Callable[[str], Admit],
        admission: Admission | None = None,
        *,
        default_deadline: timedelta = timedelta(seconds=60),
    ) -> None:
        """`access` says for each method who may call it; `default_deadline` is for unary calls."""
        self._access = access
        self._default_deadline = default_deadline
        self._admission = admission or Admission()
        self._sending: dict[asyncio.Task[Any], float] = {}
        """Calls that are answered, and since when; their answer is on its way."""
        self._wrapped: dict[str, MethodHandler] = {}
        self._calls: dict[asyncio.Task[Any], str] = {}
        self._refusal: Callable[[], TaskLogsError] | None = None
        self._refused_at = 0.0
        self._ending = False

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
        inner, make = shape_of(handler)
        wrap = self._yielding if inspect.isasyncgenfunction(inner) else self._returning
        # Requests come in as bytes and are decoded inside: that fails by the same exit, and only
        # whoever may call has it done.
        inner = _with_caller(inner, method)
        if not handler.request_streaming and not handler.response_streaming:
            inner = within(self._default_deadline, inner)
        return make(
            wrap(inner, _decoding(handler), method),
            request_deserializer=None,
            response_serializer=handler.response_serializer,
        )

    def refuse(self, error: Callable[[], TaskLogsError]) -> None:
        """Answer every call of the API that comes from now on with what `error` makes."""
        self._refusal = error

    def end(self) -> None:
        """End every open call of the API with what new ones are refused with.

        What the server's own `stop` cuts off would reach the caller as CANCELLED.
        """
        self._ending = True
        for call, method in self._calls.items():
            if _is_of_the_api(method):
                call.cancel()

    async def answered(self) -> None:
        """Wait until no call of the API is open; a health Watch may stay for ever."""
        while calls := [call for call, method in self._calls.items() if _is_of_the_api(method)]:
            await asyncio.wait(calls)

    async def quiet(self, seconds: float) -> None:
        """Wait until for so long no call came that was refused."""
        loop = asyncio.get_running_loop()
        while (left := self._refused_at + seconds - loop.time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left)

    async def cut_off(self, taking_longer_than: timedelta) -> None:
        """Cancel calls whose answer nobody takes, until cancelled: each may hold a page."""
        limit = taking_longer_than.total_seconds()
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(limit / 4)
            for call, since in list(self._sending.items()):
                if loop.time() - since > limit:
                    call.cancel()

    async def finished(self) -> None:
        """Wait until the handlers of all calls have run to their end."""
        while self._calls:
            await asyncio.wait(self._calls)

    def _returning(self, inner: _Handler, decode: _Decode, method: str) -> _Handler:
        access, admit = self._access(method), self._admitting(method)
        is_counted = _is_of_the_api(method)

        async def handle(request: Any, context: Context) -> Any:
            with self._tracked(method) as call:
                try:
                    self._raise_refusal(call, method)
                    caller = await access(context)
                    # After that: strangers must not hold places that callers wait for.
                    turn = admit(call)
                    if turn is not None:
                        await turn
                    answer = await inner(decode(request), context, caller)
                    if is_counted:
                        self._sending[call] = call.get_loop().time()
                    return answer
                except asyncio.CancelledError:
                    status = self._status_of_the_end()
                except Exception as error:
                    status = _status_of(error, method)
                return await context.abort_with_status(rpc_status.to_status(status))

        return handle

    def _yielding(self, inner: _Handler, decode: _Decode, method: str) -> _Handler:
        access, admit = self._access(method), self._admitting(method)

        async def handle(request: Any, context: Context) -> AsyncIterator[Any]:
            with self._tracked(method) as call:
                try:
                    self._raise_refusal(call, method)
                    caller = await access(context)
                    # After that: strangers must not hold places that callers wait for.
                    turn = admit(call)
                    if turn is not None:
                        await turn
                    # Closed with the call: an abandoned generator's cleanup runs whenever.
                    async with aclosing(inner(decode(request), context, caller)) as responses:
                        async for response in responses:
                            yield response
                    return
                except asyncio.CancelledError:
                    status = self._status_of_the_end()
                except Exception as error:
                    status = _status_of(error, method)
                await context.abort_with_status(rpc_status.to_status(status))

        return handle

    def _status_of_the_end(self) -> Status:
        """Return the refusal where it was `end` that cancelled; where the caller left, raise on."""
        call = asyncio.current_task()
        if not self._ending or self._refusal is None or call is None:
            raise
        call.uncancel()
        return status_of(self._refusal())

    def _admitting(self, method: str) -> Callable[[_Call], Awaitable[None] | None]:
        """Return what admits a call of `method`, or raises; what that returns is to be awaited."""
        if not _is_of_the_api(method):
            return lambda _: None
        kind = kind_of(method)
        is_over = partial(self._is_over, kind)

        async def queue(turn: Awaitable[None], call: _Call) -> None:
            await turn
            call.add_done_callback(is_over)

        def admit(call: _Call) -> Awaitable[None] | None:
            turn = self._admission.enter(kind)
            if turn is not None:
                return queue(turn, call)
            # It is over when its answer is sent, not when it is given.
            call.add_done_callback(is_over)
            return None

        return admit

    def _raise_refusal(self, call: _Call, method: str) -> None:
        if self._refusal is not None and _is_of_the_api(method):
            self._refused_at = call.get_loop().time()
            raise self._refusal()

    def _is_over(self, kind: Kind, call: _Call) -> None:
        self._sending.pop(call, None)
        self._admission.leave(kind)

    @contextmanager
    def _tracked(self, method: str) -> Iterator[_Call]:
        call = asyncio.current_task()
        assert call is not None
        self._calls[call] = method
        try:
            yield call
        finally:
            del self._calls[call]


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
    """Return what makes of the call's bytes, or of its stream of bytes, what the handler takes."""
    deserializer: _Decode = handler.request_deserializer

    def decode(raw: bytes) -> Any:
        try:
            return deserializer(raw)
        except DecodeError:  # malformed, text that is no UTF-8, or nested too deep
            violation = FieldViolation("request", "cannot be decoded as a message of its type")
            raise InvalidFields([violation]) from None

    if handler.request_streaming:
        return lambda requests: _Decoded(requests, decode)
    return decode


def _with_caller(inner: _Handler, method: str) -> _Handler:
    """Return a handler that takes the caller; those of health and reflection do not know of one."""
    if _is_of_the_api(method):
        return inner
    if inspect.isasyncgenfunction(inner):
        return until_the_token_ends(inner)
    return lambda request, context, _: inner(request, context)


def _is_of_the_api(method: str) -> bool:
    return method.startswith(f"/{DOMAIN}.")


def _status_of(error: Exception, method: str) -> Status:
    # AbortError is an Exception: a status that was chosen already goes through.
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, TaskLogsError):
        return status_of(error)
    _log.error("rpc.failed", method=method, exception=traceback_of(error))
    return INTERNAL


def shape_of(handler: Any) -> tuple[_Handler, Callable[..., MethodHandler]]:
    """Return a handler's function, and what makes a handler of its kind."""
    if handler.request_streaming and handler.response_streaming:
        return handler.stream_stream, grpc.stream_stream_rpc_method_handler
    if handler.request_streaming:
        return handler.stream_unary, grpc.stream_unary_rpc_method_handler
    if handler.response_streaming:
        return handler.unary_stream, grpc.unary_stream_rpc_method_handler
    return handler.unary_unary, grpc.unary_unary_rpc_method_handler
