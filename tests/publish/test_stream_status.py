"""Whatever a stream was doing when the peer ended it, the peer's own status is what is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from tasklogs.publish.stream_status import StreamCall

METHOD = "/test.Streams/Talk"
STREAMS = 100
ENDS = [(grpc.StatusCode.UNAVAILABLE, "the store is away"), (grpc.StatusCode.OK, "")]


@pytest.fixture(params=ENDS, ids=["refused", "closed"])
async def end(request: pytest.FixtureRequest) -> tuple[grpc.StatusCode, str]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
async def open_call(end: tuple[grpc.StatusCode, str]) -> AsyncIterator[Callable[[], Any]]:
    """A server that ends each stream at its first message, and calls of it."""

    async def talk(_: object, context: Any) -> None:
        await context.read()
        if end[0] is not grpc.StatusCode.OK:
            await context.abort(*end)

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(talk)
    service, method = METHOD.strip("/").split("/")
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {method: handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        untyped: Any = channel
        yield untyped.stream_stream(METHOD)
    await server.stop(None)


async def end_of(act: Callable[[], Awaitable[Any]]) -> tuple[grpc.StatusCode, str]:
    """Act until the stream has ended; return how."""
    try:
        while await act() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    return grpc.StatusCode.OK, ""


async def test_writes_and_reads_tell_how_the_peer_ended_the_stream(
    open_call: Callable[[], Any], end: tuple[grpc.StatusCode, str]
) -> None:
    """A write that meets the end makes grpc.aio say INTERNAL, in about half of these streams."""
    for number in range(STREAMS):
        call = StreamCall(open_call())

        async def write(call: StreamCall = call, pauses: int = number % 10) -> None:
            await call.write(b"x" * 3000)
            for _ in range(pauses):  # so that it meets the end at many a moment
                await asyncio.sleep(0)

        assert await end_of(write) == end
        assert await end_of(call.read) == end
        status = await call.status()
        assert (status.code(), status.details()) == end
        await call.done_writing()


async def test_a_reader_is_told_while_another_task_writes(
    open_call: Callable[[], Any], end: tuple[grpc.StatusCode, str]
) -> None:
    for _ in range(STREAMS):
        call = StreamCall(open_call())

        async def write(call: StreamCall = call) -> None:
            await call.write(b"x")

        ends = await asyncio.gather(end_of(call.read), end_of(write))
        assert set(ends) == {end}


async def test_a_write_after_done_writing_is_a_mistake_not_the_end(
    open_call: Callable[[], Any],
) -> None:
    call = StreamCall(open_call())
    await call.done_writing()
    with pytest.raises(asyncio.InvalidStateError):
        await call.write(b"x")
    call.cancel()
    assert call.is_cancelled


class LateStatus:
    """A call whose failed write sets INTERNAL before the peer's status has arrived."""

    def __init__(self, *statuses: grpc.aio.AioRpcError) -> None:
        self._statuses = list(statuses)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        pass

    async def read(self) -> None:
        raise self._statuses[0]

    async def code(self) -> grpc.StatusCode:
        if len(self._statuses) > 1:
            self._statuses.pop(0)
        return self._statuses[0].code()

    async def details(self) -> str:
        return self._statuses[0].details() or ""

    async def initial_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return self._statuses[0].trailing_metadata()


def error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata(("told", details))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details)


@pytest.mark.parametrize(
    "of_the_peer",
    [
        error(grpc.StatusCode.ABORTED, "superseded"),
        error(grpc.StatusCode.INTERNAL, "of the server's own"),
    ],
    ids=["aborted", "internal"],
)
async def test_a_status_that_arrives_after_the_failed_write_is_waited_for(
    of_the_peer: grpc.aio.AioRpcError,
) -> None:
    from_core = error(grpc.StatusCode.INTERNAL, "Internal error from Core")
    late: Any = LateStatus(from_core, from_core, from_core, of_the_peer)

    with pytest.raises(grpc.aio.AioRpcError) as told:
        await StreamCall(late).read()

    assert told.value.code() is of_the_peer.code()
    assert told.value.details() == of_the_peer.details()
    assert told.value.trailing_metadata() == of_the_peer.trailing_metadata()
