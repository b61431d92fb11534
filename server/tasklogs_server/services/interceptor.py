"""The one exit of all failed calls: domain errors become status and details, all else INTERNAL."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
from contextlib import aclosing, contextmanager
from datetime import timedelta
from typing import Any, TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from tasklogs_server.domain.caller import LOCAL, Agent, Caller
from tasklogs_server.domain.errors import FieldViolation, InvalidFields, TaskLogsError
from tasklogs_server.services.access import Admit
from tasklogs_server.services.admission import Admission, Kind, kind_of
from tasklogs_server.services.arrivals import Arrivals
from tasklogs_server.services.deadlines import within
from tasklogs_server.services.departures import is_of_a_peer_that_left
from tasklogs_server.services.errors import DOMAIN, INTERNAL, status_of
from tasklogs_server.services.expiry import until_the_token_ends
from tasklogs_server.services.sending import Sending
from tasklogs_server.services.tracebacks import traceback_of

_log = structlog.get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
MethodHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Handler = Callable[..., Any]
_Decode = Callable[[bytes], Any]
_Call: TypeAlias = "asyncio.Task[Any]"
_Take: TypeAlias = "Callable[[_Call, Any, Context], Awaitable[Any]]"


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
        request_within: timedelta = timedelta(seconds=30),
        answer_within: timedelta = timedelta(seconds=30),
        answer_bytes: int = 256 * 1024 * 1024,
    ) -> None:
        """`access` says for each method who may call it; `default_deadline` is for unary calls.

        A request may take `request_within` to come in, an answer `answer_within` to be taken.
        Answers that are not taken may be about `answer_bytes`.
        """
        self._access = access
        self._default_deadline = default_deadline
        self._admission = admission or Admission()
        self._arrivals = Arrivals(request_within)
        self._sending = Sending(answer_bytes, answer_within)
        self._at_work: dict[_Call, Kind] = {}
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
        inner, _ = shape_of(handler)
        wrap = self._yielding if inspect.isasyncgenfunction(inner) else self._returning
        inner = _with_caller(inner, method)
        if not handler.request_streaming and not handler.response_streaming:
            inner = within(self._default_deadline, inner)
        # To gRPC all requests are streams, so that we have a call as soon as its headers are there:
        # of a single message it would wait for ever, and for that of a stranger too. They come in
        # as bytes and are decoded inside: that fails by the same exit, and only whoever may call
        # has it done.
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return make(
            wrap(inner, self._taking(handler), method),
            request_deserializer=None,
            response_serializer=handler.response_serializer,
        )

    def _taking(self, handler: Any) -> _Take:
        """Return what takes of a call what the handler wants: its request, or all of them."""
        decode = _decoding(handler)
        if handler.request_streaming:

            async def take_stream(call: _Call, requests: Any, context: Context) -> Any:
                return _Decoded(requests, decode)

            return take_stream
        message = self._arrivals.message

        async def take_one(call: _Call, requests: Any, context: Context) -> Any:
            return decode(await message(call, context))

        return take_one

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
        """Wait until no call of the API is open, and what was answered is taken.

        A health Watch may stay for ever.
        """
        while calls := [
            *(call for call, method in self._calls.items() if _is_of_the_api(method)),
            *self._sending.calls,
        ]:
            await asyncio.wait(calls)

    async def quiet(self, seconds: float) -> None:
        """Wait until for so long no call came that was refused."""
        loop = asyncio.get_running_loop()
        while (left := self._refused_at + seconds - loop.time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left)

    async def cut_off(self) -> None:
        """Cancel calls whose answer nobody takes, until cancelled: each may hold a page.

        Those whose request does not come in are ended too.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._arrivals.cut_off())
            group.create_task(self._sending.cut_off())

    async def finished(self) -> None:
        """Wait until the handlers of all calls have run to their end."""
        while self._calls:
            await asyncio.wait(self._calls)

    def _returning(self, inner: _Handler, take: _Take, method: str) -> _Handler:
        access, admit = self._access(method), self._admitting(method)
        # Streams have bounds of their own, and agents must not wait for readers who do not read.
        is_counted = _is_of_the_api(method) and kind_of(method) in (Kind.READ, Kind.WRITE)
        is_read = kind_of(method) is Kind.READ

        async def handle(requests: Any, context: Context) -> Any:
            with self._tracked(method) as call:
                try:
                    self._raise_refusal(call, method)
                    caller = await access(context)
                    request = await take(call, requests, context)
                    # After that: strangers, and who never says what he wants, must not hold places
                    # that callers wait for.
                    if is_counted:
                        whose = _whose(caller, context)
                        self._sending.check(whose)
                    turn = admit(call)
                    if turn is not None:
                        await turn
                    answer = await inner(request, context, caller)
                    if is_counted and answer is not None:
                        if is_read:
                            # Thousands may have queued before anyone was answered. What a change
                            # did is told, whatever it takes.
                            self._sending.check(whose)
                        # At work no longer, whether the caller takes it or not.
                        self._sending.began(call, whose, _size_of(answer))
                        self._leave(call)
                    return answer
                except asyncio.CancelledError:
                    status = self._status_of_the_end()
                except Exception as error:
                    status = _status_of(error, method)
                return await self._abort(call, context, status)

        return handle

    def _yielding(self, inner: _Handler, take: _Take, method: str) -> _Handler:
        access, admit = self._access(method), self._admitting(method)

        async def handle(requests: Any, context: Context) -> AsyncIterator[Any]:
            with self._tracked(method) as call:
                try:
                    self._raise_refusal(call, method)
                    caller = await access(context)
                    request = await take(call, requests, context)
                    turn = admit(call)
                    if turn is not None:
                        await turn
                    # Closed with the call: an abandoned generator's cleanup runs whenever.
                    async with aclosing(inner(request, context, caller)) as responses:
                        async for response in responses:
                            yield response
                    return
                except asyncio.CancelledError:
                    status = self._status_of_the_end()
                except Exception as error:
                    status = _status_of(error, method)
                await self._abort(call, context, status)

        return handle

    async def _abort(self, call: _Call, context: Context, status: Status) -> None:
        """Send how the call ended; behind messages that nobody takes it would wait for ever."""
        self._sending.began(call, None, 0)
        try:
            await context.abort_with_status(rpc_status.to_status(status))
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            if is_of_a_peer_that_left(error):
                raise asyncio.CancelledError from error
            raise
        finally:
            self._sending.is_over(call)

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

        async def queue(turn: Awaitable[None], call: _Call) -> None:
            await turn
            enter(call)

        def enter(call: _Call) -> None:
            self._at_work[call] = kind
            call.add_done_callback(self._is_over)

        def admit(call: _Call) -> Awaitable[None] | None:
            turn = self._admission.enter(kind)
            if turn is not None:
                return queue(turn, call)
            enter(call)
            return None

        return admit

    def _raise_refusal(self, call: _Call, method: str) -> None:
        if self._refusal is not None and _is_of_the_api(method):
            self._refused_at = call.get_loop().time()
            raise self._refusal()

    def _is_over(self, call: _Call) -> None:
        self._sending.is_over(call)
        self._leave(call)

    def _leave(self, call: _Call) -> None:
        kind = self._at_work.pop(call, None)
        if kind is not None:
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
    """Return what makes a message that the handler takes of its bytes."""
    deserializer: _Decode = handler.request_deserializer

    def decode(raw: bytes) -> Any:
        try:
            return deserializer(raw)
        except DecodeError:  # malformed, text that is no UTF-8, or nested too deep
            violation = FieldViolation("request", "cannot be decoded as a message of its type")
            raise InvalidFields([violation]) from None

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


def _whose(caller: Caller | None, context: Context) -> Hashable:
    """Return whom an answer is for: who is `local`, and cannot be told apart, by connection."""
    if isinstance(caller, Agent):
        return caller.task_id
    if caller is None or caller is LOCAL:
        return context.peer()
    return caller.subject


def _size_of(answer: Any) -> int:
    return len(answer) if isinstance(answer, bytes) else int(answer.ByteSize())


def _status_of(error: Exception, method: str) -> Status:
    # AbortError is an Exception: a status that was chosen already goes through.
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, TaskLogsError):
        return status_of(error)
    if is_of_a_peer_that_left(error):
        raise asyncio.CancelledError from error
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
