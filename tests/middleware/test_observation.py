"""What telemetry records of a call: its request id, its task, its code."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import grpc
import pytest

from tasklogs_server.domain.errors import TaskNotFound
from tasklogs_server.middleware.observation import CallObserver
from tasklogs_server.middleware.open_calls import OpenCalls
from tasklogs_server.telemetry.call_log import CallLog
from tasklogs_server.telemetry.calls import Call, concerns, with_call
from tasklogs_server.telemetry.observer import Observer
from tests.middleware.test_interceptor import (
    METHODS,
    SERVICE,
    Do,
    Scripted,
    call,
    decode,
    interceptor_of,
)
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until

TASK = UUID(int=7)
AGENT_TOKEN = f"tla_{UUID(int=1)}_{'a' * 43}"


class Heard(Observer):
    """Records the calls that it is told of."""

    def __init__(self) -> None:
        self.open: list[Call] = []
        self.ends: list[tuple[Call, str]] = []
        self.unknown = 0
        self.ended_one = asyncio.Event()

    def began(self, call: Call) -> None:
        self.open.append(call)

    def ended(self, call: Call, code: str) -> None:
        self.ends.append((call, code))
        self.ended_one.set()

    def unknown_method(self) -> None:
        self.unknown += 1


@asynccontextmanager
async def observed(do: Do) -> AsyncIterator[tuple[grpc.aio.Channel, Heard]]:
    """A server of scripted handlers behind both interceptors, as the real one has them."""
    heard = Heard()
    server = grpc.aio.server(
        interceptors=[CallObserver(heard), interceptor_of(OpenCalls())],
        options=[("grpc.so_reuseport", 0)],
    )
    scripted = Scripted(do)
    make: dict[str, Any] = {
        "unary": grpc.unary_unary_rpc_method_handler,
        "generating": grpc.unary_stream_rpc_method_handler,
        "writing": grpc.unary_stream_rpc_method_handler,
        "taking": grpc.stream_unary_rpc_method_handler,
        "talking": grpc.stream_stream_rpc_method_handler,
        "conversing": grpc.stream_stream_rpc_method_handler,
    }
    handlers = {name: make[name](getattr(scripted, name), decode, bytes) for name in METHODS}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel, heard
    finally:
        await server.stop(grace=None)


@pytest.mark.parametrize("method", METHODS)
async def test_an_answered_call_ends_ok_and_names_its_task(method: str) -> None:
    async def work(_: Any) -> None:
        concerns(TASK)

    async with observed(work) as (channel, heard), asyncio.timeout(DEADLINE_SECONDS):
        assert await call(channel, method) == b"request"
        await heard.ended_one.wait()

    [(ended, code)] = heard.ends
    assert (ended.method, ended.task_id, code) == (f"/{SERVICE}/{method}", TASK, "OK")
    assert heard.open == [ended]


@pytest.mark.parametrize("method", METHODS)
async def test_a_refused_call_ends_with_the_code_that_its_caller_gets(method: str) -> None:
    async def fail(_: Any) -> None:
        raise TaskNotFound("local/x")

    async with observed(fail) as (channel, heard), asyncio.timeout(DEADLINE_SECONDS):
        with pytest.raises(grpc.aio.AioRpcError):
            await call(channel, method)
        await heard.ended_one.wait()

    assert [code for _, code in heard.ends] == ["NOT_FOUND"]


@pytest.mark.parametrize("method", METHODS)
async def test_an_unexpected_error_ends_internal(method: str) -> None:
    async def fail(_: Any) -> None:
        raise ZeroDivisionError

    async with observed(fail) as (channel, heard), asyncio.timeout(DEADLINE_SECONDS):
        with pytest.raises(grpc.aio.AioRpcError):
            await call(channel, method)
        await heard.ended_one.wait()

    assert [code for _, code in heard.ends] == ["INTERNAL"]


@pytest.mark.parametrize("method", METHODS)
async def test_a_call_whose_caller_leaves_ends_cancelled(method: str) -> None:
    started = asyncio.Event()

    async def hang(_: Any) -> None:
        started.set()
        await asyncio.Event().wait()

    async with observed(hang) as (channel, heard), asyncio.timeout(DEADLINE_SECONDS):
        pending = asyncio.create_task(call(channel, method))
        await started.wait()
        pending.cancel()
        await heard.ended_one.wait()

    assert [code for _, code in heard.ends] == ["CANCELLED"]


async def test_an_unknown_method_is_counted_without_its_name() -> None:
    async def nothing(_: Any) -> None:
        pass

    async with observed(nothing) as (channel, heard):
        untyped: Any = channel
        with pytest.raises(grpc.aio.AioRpcError):
            await untyped.unary_unary("/x.Y/Secret")(b"")

    assert (heard.unknown, heard.open) == (1, [])


@pytest.mark.parametrize(
    "given",
    [
        "",
        " ",
        "two words",
        "a" * 129,
        "line\nbreak",
        "tab\t",
        "\x7f",
        "é",
        b"bytes",
        AGENT_TOKEN,
        "eyJhbGciOi",
    ],
)
def test_an_invalid_request_id_is_replaced(given: str | bytes) -> None:
    made = Call("/a/b", [("x-request-id", given)])

    assert made.request_id != given
    assert len(made.request_id) == 16


def test_a_valid_request_id_is_kept_and_generated_ones_differ() -> None:
    assert Call("/a/b", [("x-request-id", "a-1_b.c:d")]).request_id == "a-1_b.c:d"
    assert Call("/a/b", []).request_id != Call("/a/b", []).request_id


async def test_other_log_lines_name_their_call() -> None:
    one = Call("/a/b", [("x-request-id", "one")])
    one.make_current()
    concerns(TASK)

    assert with_call(None, "", {"event": "x"}) == {
        "event": "x",
        "request_id": "one",
        "task": str(TASK),
    }


async def test_log_lines_are_json_and_collected_lines_are_one_write() -> None:
    written: list[Sequence[str]] = []
    log = CallLog(written.append, "json", only_failed=False)
    one = Call("/a/b", [("x-request-id", "one")])
    log.ended(one, "OK")
    one.task_id = TASK
    log.ended(one, "NOT_FOUND")
    await until(lambda: bool(written))

    assert len(written) == 1
    first, second = (json.loads(line) for line in written[0])
    assert (first["task"], first["code"]) == (None, "OK")
    assert (second["task"], second["code"]) == (str(TASK), "NOT_FOUND")


async def test_only_failed_leaves_out_calls_that_succeeded_or_were_cancelled() -> None:
    written: list[Sequence[str]] = []
    log = CallLog(written.append, "console", only_failed=True)
    for code in ("OK", "CANCELLED", "UNAVAILABLE"):
        log.ended(Call("/a/b", []), code)
    log.flush()

    [[line]] = written
    assert "code=UNAVAILABLE" in line
