"""The way of every call: `CallInterceptor._in_order` is the list of its steps."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import grpc
from google.rpc.status_pb2 import Status

from tasklogs_server.domain.caller import Agent
from tasklogs_server.limits.admission import Admission, Kind
from tasklogs_server.limits.upload_queue import UploadQueue
from tasklogs_server.middleware.authentication import Authenticate
from tasklogs_server.middleware.deadlines import DefaultDeadline, until_the_token_expires
from tasklogs_server.middleware.error_table import status_of
from tasklogs_server.middleware.failures import (
    UNKNOWN_METHOD,
    Failures,
    abort,
    release,
    release_when_over,
)
from tasklogs_server.middleware.handlers import (
    Call,
    Context,
    Handler,
    MethodHandler,
    function_of,
    of_raw_messages,
    without_caller,
    writing,
)
from tasklogs_server.middleware.methods import Method, Rule, method_of
from tasklogs_server.middleware.open_calls import OpenCalls
from tasklogs_server.middleware.operations import OperationStreams
from tasklogs_server.middleware.request_ids import StreamContext, current_request_id, metadata_of
from tasklogs_server.middleware.requests import (
    DecodedStream,
    RequestBodies,
    decoder_of,
    missing_request,
)
from tasklogs_server.middleware.responses import Responses, recipient_of
from tasklogs_server.telemetry.calls import Call as OneCall
from tasklogs_server.telemetry.calls import current

EOF = grpc.aio.EOF


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handlers of all four kinds of RPC."""

    def __init__(
        self,
        authentication: Callable[..., Authenticate],
        *,
        calls: OpenCalls,
        bodies: RequestBodies,
        responses: Responses,
        operations: OperationStreams,
        admission: Admission,
        uploads: UploadQueue,
        failures: Failures,
        default_deadline: timedelta,
    ) -> None:
        """`authentication`: see `Authentication.of`; `default_deadline`: of unary calls."""
        self._authentication = authentication
        self._calls = calls
        self._bodies = bodies
        self._responses = responses
        self._operations = operations
        self._admission = admission
        self._uploads = uploads
        self._failures = failures
        self._default_deadline = DefaultDeadline(default_deadline)
        self._wrapped: dict[str, MethodHandler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[MethodHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> MethodHandler | None:
        """Return the method's handler, wrapped. It is wrapped once: handlers do not change."""
        name = str(handler_call_details.method)
        metadata = handler_call_details.invocation_metadata
        this_call = current()
        # Telemetry may have made it. Any other one is not this call: it has another token.
        if this_call is None or this_call.metadata is not metadata:
            OneCall(name, metadata).make_current()
        wrapped = self._wrapped.get(name)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:  # not in the table of handlers: any peer could fill it
                return UNKNOWN_METHOD
            in_order = self._in_order(handler, name, method_of(name))
            wrapped = self._wrapped[name] = of_raw_messages(handler, in_order)
        return wrapped

    def _in_order(self, handler: Any, name: str, method: Method) -> Handler:
        """Return the function that gRPC calls: the steps around a handler, and the exit."""
        calls, bodies, responses = self._calls, self._bodies, self._responses
        admission, default_deadline = self._admission, self._default_deadline
        operations, uploads = self._operations, self._uploads
        kind, is_read = method.kind, method.kind in (Kind.READ, Kind.LIST)
        is_operation = kind is Kind.OPERATIONS
        streams_requests = handler.request_streaming
        streams_responses = handler.response_streaming
        is_unary = not streams_requests and not streams_responses
        # A stream's handler waits while its caller does not read. Health checks are never refused.
        limits_unread = is_read or kind in (Kind.WRITE, Kind.UPLOAD)
        authenticate = self._authentication(method.rule, is_stream=streams_responses)
        decode = decoder_of(
            None if method.is_decoded_by_handler else handler.request_deserializer,
            limit_bytes=method.request_bytes,
            most_fields=method.request_fields,
        )
        serialize = handler.response_serializer
        function = _function(handler, method)

        async def steps(call: Call, context: Context) -> Any:
            # 1. The call is known: a drain waits for it, and ends it. Refused while draining.
            calls.begin(call, kind)
            this_call = current()
            context.set_trailing_metadata(metadata_of(this_call))
            # 2. The caller, and whether they may call this method.
            try:
                caller = await authenticate(context)
            finally:
                if this_call is not None:  # tasks that this call starts may outlive it
                    this_call.metadata = ()
            recipient = recipient_of(caller, context)
            if this_call is not None:
                this_call.caller = recipient
            # 3. Its turn to begin. Health and reflection do not wait for one.
            if not is_operation and (turn := admission.begin(recipient)) is not None:
                await turn
            # 4. The request. It is not read for an upload that is refused anyway, and not decoded
            # for callers who may not call.
            if kind is Kind.UPLOAD and is_unary and isinstance(caller, Agent):
                uploads.check(caller.task_id)
            request: Any
            if streams_requests and is_operation:
                request = operations.requests(call, context, caller, decode)
            elif streams_requests and streams_responses:
                request = DecodedStream(context, decode)
            elif streams_requests:
                request = bodies.stream(call, context, decode)
            else:
                request = await bodies.read(call, context, is_known=caller is not None)
                if request is EOF:
                    raise missing_request()
                request = decode(request)
            # 5. Refused if this caller, or all callers together, leave too many bytes unread.
            if limits_unread:
                responses.admit(recipient)
            # 6. A place among the calls of this kind. It is not held while a request or a response
            # is on its way: slow peers must not hold what other callers wait for.
            turn = admission.enter(kind, recipient)
            if turn is not None:
                await turn
            try:
                # 7. The handler. A unary call whose caller set no deadline gets one.
                handled: Any = context
                if streams_responses and is_operation:
                    handled = operations.context(call, context, caller)
                elif streams_responses:
                    handled = StreamContext(context)
                answering = function(request, handled, caller)
                if is_unary and context.time_remaining() is None:
                    answering = default_deadline.within(call, answering)
                response = await answering
            finally:
                admission.leave(kind)
            # 8. The response, which counts as unread until gRPC has sent it. Thousands of reads may
            # have passed step 5 before one of them was answered. The result of a write is sent
            # whatever is unread.
            if is_read:
                responses.check(recipient)
            if response is None and (streams_responses or _has_failed(context)):
                # A stream, or a library's handler that has set a status instead.
                responses.began(call, recipient, 0)
                return None
            body = response if isinstance(response, bytes) else serialize(response)
            responses.began(call, recipient, len(body))
            return body

        async def handle(_: AsyncIterator[bytes], context: Context) -> Any:
            call = asyncio.current_task()
            assert call is not None
            try:
                try:
                    return await steps(call, context)
                except (Exception, asyncio.CancelledError) as error:
                    status = self._status_of(error, call, name)
                    if status is None:
                        release_when_over(error)
                        raise
                    release(error)
                # The status is sent after the messages before it, which nobody may read.
                responses.began(call, None, 0)
                await abort(context, status)
            finally:
                calls.finish(call)

        return handle

    def _status_of(
        self, error: Exception | asyncio.CancelledError, call: Call, name: str
    ) -> Status | None:
        """Return what the caller is told; None: the call ends with `error` itself.

        It is not raised here: it would refer to this frame, which refers to it. A call that was
        reset would keep its memory until the next garbage collection.
        """
        if isinstance(error, Exception):
            return self._failures.status_of(error, name)
        end = self._calls.end_of(call)
        if end is None:
            return None
        return status_of(end, current_request_id())


def _function(handler: Any, method: Method) -> Handler:
    """Return a handler's function as step 7 calls it: with the caller, bounded by their token."""
    function = function_of(handler)
    if method.kind is Kind.OPERATIONS:  # libraries' handlers: they know no caller
        function = without_caller(function)
    if inspect.isasyncgenfunction(function_of(handler)):
        function = writing(function)
    if handler.response_streaming and method.rule is not Rule.AGENT:  # agents' tokens do not expire
        function = until_the_token_expires(function)
    return function


def _has_failed(context: Any) -> bool:
    """Whether the handler has set a status that is not OK, which the stubs take for an enum."""
    return context.code() not in (0, grpc.StatusCode.OK)
