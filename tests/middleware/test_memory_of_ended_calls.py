"""A call that has ended holds nothing: its request is freed without a garbage collection."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, ClassVar, cast

import grpc
import grpc.aio
import pytest
from google.protobuf.message import DecodeError

from tasklogs_server.domain.errors import ServerDraining, TaskNotFound
from tasklogs_server.middleware.failures import release
from tasklogs_server.middleware.observation import CallObserver
from tasklogs_server.middleware.open_calls import OpenCalls
from tasklogs_server.telemetry.observer import Observer
from tests.middleware.test_interceptor import METHODS, SERVICE, Scripted, call, interceptor_of
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.garbage import calls_are_over, garbage_of_calls, without_collector
from tests.support.fixtures.refusals import refused

__all__ = ["without_collector"]

CALLS = 10
Context = grpc.aio.ServicerContext[Any, Any]
Do = Callable[[Context], Any]


class Request:
    """A decoded request. It can be referred to weakly, which protobuf messages cannot."""

    alive: ClassVar[weakref.WeakSet[Request]] = weakref.WeakSet()

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        Request.alive.add(self)

    def __bytes__(self) -> bytes:
        return self.raw


@asynccontextmanager
async def serving(
    do: Do,
    decode: Callable[[bytes], Any] = Request,
    *,
    calls: OpenCalls | None = None,
    outer: Sequence[grpc.aio.ServerInterceptor] = (),
    **settings: Any,
) -> AsyncIterator[tuple[grpc.aio.Channel, str]]:
    """Serve `Scripted`. Yields a channel, and the address."""
    inner = interceptor_of(calls or OpenCalls(), **settings)
    server = grpc.aio.server(interceptors=[*outer, inner], options=[("grpc.so_reuseport", 0)])
    scripted = Scripted(do)
    handlers = {
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
        async with (
            asyncio.timeout(DEADLINE_SECONDS),
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            yield channel, f"127.0.0.1:{port}"
    finally:
        await server.stop(grace=None)


async def answer(_: Context) -> None:
    pass


async def refuse(_: Context) -> None:
    raise TaskNotFound("local/demo")


async def fail(_: Context) -> None:
    raise RuntimeError("a bug")


async def fail_for_another_reason(_: Context) -> None:
    try:
        raise KeyError("x")
    except KeyError as error:
        kept = error
        raise TaskNotFound("local/demo") from kept


async def fail_with_others(_: Context) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(refuse(_))
        await asyncio.Event().wait()


async def keep_the_error(_: Context) -> None:
    """Fail with an error that a variable of this frame refers to."""
    result: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    result.set_exception(TaskNotFound("local/demo"))
    await result


async def abort(context: Context) -> None:
    await context.abort(grpc.StatusCode.ABORTED, "by the handler")


async def end(channel: Any, method: str, timeout: float | None = None) -> None:
    with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
        await call(channel, method, timeout)


async def assert_nothing_is_held(channel: Any) -> None:
    # gRPC lets go of the last call of a server when the next one comes.
    with suppress(grpc.aio.AioRpcError):
        await channel.unary_unary(f"/{SERVICE}/none")(b"")
    await calls_are_over()
    assert len(Request.alive) == 0
    assert garbage_of_calls(Request) == {}


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "do",
    [answer, refuse, fail, fail_for_another_reason, fail_with_others, keep_the_error, abort],
    ids=lambda do: do.__name__,
)
async def test_a_call_that_has_ended_holds_nothing(do: Do, method: str) -> None:
    async with serving(do) as (channel, _):
        for _n in range(CALLS):
            await end(channel, method)
        await assert_nothing_is_held(channel)


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize("method", METHODS)
async def test_a_request_that_cannot_be_decoded_is_not_held(method: str) -> None:
    def decode(raw: bytes) -> Any:
        Request(raw)
        raise DecodeError

    async with serving(answer, decode) as (channel, _):
        for _n in range(CALLS):
            await end(channel, method)
        await assert_nothing_is_held(channel)


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize("method", METHODS)
async def test_a_call_whose_caller_leaves_holds_nothing(method: str) -> None:
    started: asyncio.Queue[None] = asyncio.Queue()

    async def hang(_: Context) -> None:
        started.put_nowait(None)
        await asyncio.Event().wait()

    async with serving(hang) as (channel, _):
        for _n in range(CALLS):
            pending = asyncio.create_task(call(channel, method))
            await started.get()
            pending.cancel()
            with suppress(asyncio.CancelledError):
                await pending
        await assert_nothing_is_held(channel)


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize("method", METHODS)
async def test_a_call_whose_connection_breaks_holds_nothing(method: str) -> None:
    started: asyncio.Queue[None] = asyncio.Queue()

    async def hang(_: Context) -> None:
        started.put_nowait(None)
        await asyncio.Event().wait()

    async with serving(hang) as (channel, address):
        async with grpc.aio.insecure_channel(address) as other:
            pending = [asyncio.create_task(end(other, method)) for _ in range(CALLS)]
            for _n in range(CALLS):
                await started.get()
        await asyncio.wait(pending)
        await assert_nothing_is_held(channel)


@pytest.mark.usefixtures("without_collector")
async def test_a_call_that_the_default_deadline_ends_holds_nothing() -> None:
    async def hang(_: Context) -> None:
        await asyncio.Event().wait()

    async with serving(hang, default_deadline=timedelta(milliseconds=10)) as (channel, _):
        for _n in range(CALLS):
            refusal = await refused(call(channel, "unary"))
            assert refusal.reason == "DEFAULT_DEADLINE_EXCEEDED"
        await assert_nothing_is_held(channel)


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize("method", METHODS)
async def test_a_call_that_ends_by_its_own_deadline_holds_nothing(method: str) -> None:
    async def hang(_: Context) -> None:
        await asyncio.Event().wait()

    async with serving(hang) as (channel, _):
        ends = (end(channel, method, timeout=0.2) for _ in range(CALLS))
        await asyncio.gather(*ends)
        await assert_nothing_is_held(channel)


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize("method", METHODS)
async def test_a_call_that_a_drain_ends_holds_nothing(method: str) -> None:
    started: asyncio.Queue[None] = asyncio.Queue()

    async def hang(_: Context) -> None:
        started.put_nowait(None)
        await asyncio.Event().wait()

    calls = OpenCalls()
    async with serving(hang, calls=calls) as (channel, _):
        pending = [asyncio.create_task(end(channel, method)) for _ in range(CALLS)]
        for _n in range(CALLS):
            await started.get()
        calls.refuse(lambda: ServerDraining(timedelta(seconds=2)))
        calls.end()
        await asyncio.wait(pending)
        await assert_nothing_is_held(channel)


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize("method", METHODS)
async def test_a_call_that_telemetry_observes_holds_nothing(method: str) -> None:
    async with serving(refuse, outer=[CallObserver(Observer())]) as (channel, _):
        for _n in range(CALLS):
            await end(channel, method)
        await assert_nothing_is_held(channel)


async def test_an_error_lets_go_of_the_frames_of_all_that_led_to_it() -> None:
    error = await _error_of(fail_with_others)
    assert isinstance(error, ExceptionGroup)
    error.__cause__ = await _error_of(fail_for_another_reason)
    error.__cause__.__context__ = error  # a circle ends too

    release(error)

    one = error.exceptions[0]
    assert error.__traceback__ is one.__traceback__ is error.__cause__.__traceback__ is None


async def _error_of(do: Do) -> Exception:
    try:
        await do(cast("Context", None))
    except Exception as error:
        return error
    raise AssertionError("it did not fail")
