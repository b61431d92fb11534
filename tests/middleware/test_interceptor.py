"""How calls of all four kinds of RPC end, on a server of scripted handlers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog
from structlog.testing import capture_logs

from tasklogs.publish.stream_status import StreamCall, StreamStatus
from tasklogs_server.domain.caller import LOCAL, Caller
from tasklogs_server.domain.errors import ServerDraining, TaskNotFound
from tasklogs_server.limits.admission import Admission
from tasklogs_server.limits.caller_limits import Allowance, CallerLimits
from tasklogs_server.limits.upload_queue import UploadQueue
from tasklogs_server.middleware import failures
from tasklogs_server.middleware.authentication import Authenticate
from tasklogs_server.middleware.failures import Failures
from tasklogs_server.middleware.interceptor import CallInterceptor
from tasklogs_server.middleware.methods import Rule
from tasklogs_server.middleware.open_calls import OpenCalls
from tasklogs_server.middleware.operations import OperationStreams
from tasklogs_server.middleware.requests import RequestBodies
from tasklogs_server.middleware.responses import Responses
from tasklogs_server.process import log_output
from tasklogs_server.transport.grpc_workarounds import reset_calls
from tests.support.fixtures import plain_logs
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.refusals import refused

SERVICE = "tasklogs.v1.Scripted"
CONTENT = "what a person wrote"

Do = Callable[[grpc.aio.ServicerContext[Any, Any]], Any]


class Scripted:
    """Handlers of all kinds. They run `do` when the first request has arrived."""

    def __init__(self, do: Do) -> None:
        self._do = do

    async def unary(
        self, request: bytes, context: grpc.aio.ServicerContext[Any, Any], _: Any
    ) -> bytes:
        await self._do(context)
        return request

    async def generating(
        self, request: bytes, context: grpc.aio.ServicerContext[Any, Any], _: Any
    ) -> AsyncIterator[bytes]:
        await self._do(context)
        yield request

    async def writing(
        self, request: bytes, context: grpc.aio.ServicerContext[Any, Any], _: Any
    ) -> None:
        await self._do(context)
        await context.write(request)

    async def taking(
        self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any], _: Any
    ) -> bytes:
        request = await anext(requests)
        await self._do(context)
        return request

    async def talking(
        self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any], _: Any
    ) -> AsyncIterator[bytes]:
        async for request in requests:
            await self._do(context)
            yield request

    async def conversing(
        self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any], _: Any
    ) -> None:
        async for request in requests:
            await self._do(context)
            await context.write(request)


METHODS = ("unary", "generating", "writing", "taking", "talking", "conversing")


def anyone(_: Rule, *, is_stream: bool) -> Authenticate:
    async def authenticate(_: grpc.aio.ServicerContext[Any, Any]) -> Caller:
        return LOCAL

    return authenticate


def decode(raw: bytes) -> bytes:
    return raw


def interceptor_of(
    calls: OpenCalls, default_deadline: timedelta = timedelta(minutes=1)
) -> CallInterceptor:
    minute = timedelta(minutes=1)
    bodies = RequestBodies(minute)
    responses = Responses(1024 * 1024, minute, reset=reset_calls)
    limits = CallerLimits(Allowance(), clock=time.monotonic)
    return CallInterceptor(
        anyone,
        calls=calls,
        admission=Admission(),
        uploads=UploadQueue(at_work=1, queued_bytes=1, max_wait=minute),
        bodies=bodies,
        responses=responses,
        operations=OperationStreams(limits, bodies, responses),
        failures=Failures(),
        default_deadline=default_deadline,
    )


@asynccontextmanager
async def serving(
    do: Do, default_deadline: timedelta = timedelta(minutes=1)
) -> AsyncIterator[tuple[grpc.aio.Channel, OpenCalls, Any]]:
    calls = OpenCalls()
    server = grpc.aio.server(
        interceptors=[interceptor_of(calls, default_deadline)], options=[("grpc.so_reuseport", 0)]
    )
    scripted = Scripted(do)
    handlers: dict[str, Any] = {
        "unary": grpc.unary_unary_rpc_method_handler(scripted.unary, decode, bytes),
        "generating": grpc.unary_stream_rpc_method_handler(scripted.generating, decode, bytes),
        "writing": grpc.unary_stream_rpc_method_handler(scripted.writing, decode, bytes),
        "taking": grpc.stream_unary_rpc_method_handler(scripted.taking, decode, bytes),
        "talking": grpc.stream_stream_rpc_method_handler(scripted.talking, decode, bytes),
        "conversing": grpc.stream_stream_rpc_method_handler(scripted.conversing, decode, bytes),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel, calls, server
    finally:
        await server.stop(grace=None)


async def call(channel: Any, method: str, timeout: float | None = None) -> bytes:
    """Call a method with one request; return its one response."""
    path = f"/{SERVICE}/{method}"

    async def requests() -> AsyncIterator[bytes]:
        yield b"request"

    answer: Any
    match method:
        case "unary":
            return bytes(await channel.unary_unary(path)(b"request", timeout=timeout))
        case "taking":
            taking = channel.stream_unary(path)(requests(), timeout=timeout)
            status = StreamStatus(taking)
            try:
                return bytes(await taking)
            except grpc.aio.AioRpcError as error:
                raise await status.of(error) from None
        case "generating" | "writing":
            answer = channel.unary_stream(path)(b"request", timeout=timeout)
            return b"".join([bytes(one) async for one in answer])
        case _:
            stream = StreamCall(channel.stream_stream(path)(timeout=timeout))
            await stream.write(b"request")
            await stream.done_writing()
            answers = []
            while (answer := await stream.read()) is not grpc.aio.EOF:
                answers.append(bytes(answer))
            return b"".join(answers)


@pytest.mark.parametrize("method", METHODS)
async def test_a_response_reaches_the_caller(method: str) -> None:
    async def nothing(_: Any) -> None:
        pass

    async with serving(nothing) as (channel, _, _server):
        assert await call(channel, method) == b"request"


@pytest.mark.parametrize("method", METHODS)
async def test_a_domain_error_becomes_its_status(method: str) -> None:
    async def fail(_: Any) -> None:
        raise TaskNotFound("local/x")

    async with serving(fail) as (channel, _, _server):
        refusal = await refused(call(channel, method))

    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert refusal.reason == "TASK_NOT_FOUND"


@pytest.mark.parametrize("method", METHODS)
async def test_an_unexpected_error_is_internal_to_the_caller_and_located_in_the_log(
    method: str,
) -> None:
    async def fail(_: Any) -> None:
        try:
            raise KeyError(CONTENT)
        except KeyError as error:
            raise RuntimeError(f"cannot store {CONTENT}") from error

    with capture_logs() as logged:
        async with serving(fail) as (channel, _, _server):
            refusal = await refused(call(channel, method))

    assert (refusal.code, refusal.message) == (grpc.StatusCode.INTERNAL, "internal error")
    assert (refusal.kinds, refusal.reason) == (["ErrorInfo"], "INTERNAL")
    assert refusal.request_id
    [entry] = logged
    assert entry["method"] == f"/{SERVICE}/{method}"
    assert "in fail" in entry["exception"]
    assert entry["exception"].index("KeyError") < entry["exception"].index("RuntimeError")
    assert CONTENT not in str(entry)


async def test_the_written_log_has_no_variables_and_no_content(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: Any) -> None:
        held = CONTENT
        raise RuntimeError(held)

    # A new logger: it keeps this configuration after its first use, and other tests capture theirs.
    monkeypatch.setattr(failures, "_log", structlog.get_logger("of this test"))
    log_output.configure("console", "info")
    try:
        async with serving(fail) as (channel, _, _server):
            await refused(call(channel, "unary"))
    finally:
        plain_logs.configure()

    written = capsys.readouterr().err
    assert "in fail" in written
    assert CONTENT not in written


@pytest.mark.parametrize("method", METHODS)
async def test_a_status_that_a_handler_sends_reaches_the_caller(method: str) -> None:
    async def abort(context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.abort(grpc.StatusCode.ALREADY_EXISTS, "chosen")

    with capture_logs() as logged:
        async with serving(abort) as (channel, _, _server):
            refusal = await refused(call(channel, method))

    assert (refusal.code, refusal.message) == (grpc.StatusCode.ALREADY_EXISTS, "chosen")
    assert logged == []


@pytest.mark.parametrize("method", METHODS)
async def test_a_cancelled_call_is_not_logged_and_finished_waits_for_its_cleanup(
    method: str,
) -> None:
    started, cleaned = asyncio.Event(), asyncio.Event()
    may_clean = asyncio.Event()

    async def hang(_: Any) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await may_clean.wait()
            cleaned.set()

    with capture_logs() as logged:
        async with serving(hang) as (channel, calls, server), asyncio.timeout(DEADLINE_SECONDS):
            pending = asyncio.create_task(call(channel, method))
            await started.wait()
            pending.cancel()
            await server.stop(grace=0)
            finished = asyncio.create_task(calls.finished())
            await asyncio.wait([finished], timeout=0.05)
            assert not finished.done()
            may_clean.set()
            await finished
            assert cleaned.is_set()

    assert logged == []


@pytest.mark.parametrize("method", ["generating", "talking"])
async def test_a_generator_whose_caller_leaves_between_two_responses_is_closed_with_its_call(
    method: str,
) -> None:
    cleaned = asyncio.Event()
    calls = OpenCalls()

    async def endless(*_: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 65536
        finally:
            await asyncio.sleep(0)  # cleanup that awaits, as real cleanup does
            cleaned.set()

    make: Any = {
        "generating": grpc.unary_stream_rpc_method_handler,
        "talking": grpc.stream_stream_rpc_method_handler,
    }[method]
    server = grpc.aio.server(
        interceptors=[interceptor_of(calls)], options=[("grpc.so_reuseport", 0)]
    )
    handlers = {method: make(endless, decode, bytes)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with (
        asyncio.timeout(DEADLINE_SECONDS),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        untyped: Any = channel
        path = f"/{SERVICE}/{method}"
        stream = (
            untyped.unary_stream(path)(b"")
            if method == "generating"
            else untyped.stream_stream(path)()
        )
        await stream.read()
        stream.cancel()
        await server.stop(grace=0)
        await calls.finished()
        assert cleaned.is_set()


async def test_while_draining_new_calls_are_refused_and_open_calls_answered() -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def wait(_: Any) -> None:
        started.set()
        await go_on.wait()

    async with serving(wait) as (channel, calls, _server), asyncio.timeout(DEADLINE_SECONDS):
        open_call = asyncio.create_task(call(channel, "unary"))
        await started.wait()
        calls.refuse(lambda: ServerDraining(timedelta(seconds=2)))
        answered = asyncio.create_task(calls.over())

        refusal = await refused(call(channel, "unary"))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert refusal.retry_seconds == 2
        assert not answered.done()

        go_on.set()
        assert await open_call == b"request"
        await answered
