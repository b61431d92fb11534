"""The request id of a call: taken over or made, told to the caller, and in the log."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import structlog

from tasklogs_server.domain.errors import TaskNotFound
from tasklogs_server.middleware import failures
from tasklogs_server.middleware.authentication import bearer_of
from tasklogs_server.middleware.interceptor import CallInterceptor
from tasklogs_server.middleware.observation import CallObserver
from tasklogs_server.middleware.open_calls import OpenCalls
from tasklogs_server.process import log_output
from tasklogs_server.telemetry.calls import Call, current
from tasklogs_server.telemetry.observer import Observer
from tests.middleware.test_interceptor import METHODS, SERVICE, interceptor_of, serving
from tests.support.fixtures import plain_logs
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.refusals import refusal_of

OURS = re.compile(r"[0-9a-f]{16}")
WITH_A_STREAM = ("generating", "writing", "talking", "conversing")
KEY = "x-request-id"


async def nothing(_: Any) -> None:
    pass


async def not_found(_: Any) -> None:
    raise TaskNotFound("local/x")


async def unexpected(_: Any) -> None:
    raise RuntimeError("boom")


def begun(channel: Any, method: str, *metadata: tuple[str, str]) -> Any:
    """Begin a call with one request."""
    path = f"/{SERVICE}/{method}"

    async def requests() -> AsyncIterator[bytes]:
        yield b"request"

    match method:
        case "taking":
            return channel.stream_unary(path)(requests(), metadata=metadata)
        case "generating" | "writing":
            return channel.unary_stream(path)(b"request", metadata=metadata)
        case "talking" | "conversing":
            return channel.stream_stream(path)(requests(), metadata=metadata)
        case _:
            return channel.unary_unary(path)(b"request", metadata=metadata)


async def end_of(call: Any) -> grpc.aio.AioRpcError | None:
    """Read a call to its end."""
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            if hasattr(call, "read"):
                while await call.read() is not grpc.aio.EOF:
                    pass
            else:
                await call
    except grpc.aio.AioRpcError as error:
        return error
    return None


def ids_in(metadata: Any) -> list[str]:
    return [str(value) for key, value in metadata or () if key == KEY]


@asynccontextmanager
async def written_log(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    # A new logger: it keeps this configuration after its first use, and other tests capture theirs.
    monkeypatch.setattr(failures, "_log", structlog.get_logger("of this test"))
    log_output.configure("json", "info")
    try:
        yield
    finally:
        plain_logs.configure()


@pytest.mark.parametrize("method", METHODS)
async def test_a_caller_is_told_the_id_of_its_call(method: str) -> None:
    async with serving(nothing) as (channel, _, _server):
        call = begun(channel, method)
        assert await end_of(call) is None
        [of_the_end] = ids_in(await call.trailing_metadata())
        of_the_beginning = ids_in(await call.initial_metadata())

    assert OURS.fullmatch(of_the_end)
    assert of_the_beginning == ([of_the_end] if method in WITH_A_STREAM else [])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("given", ["!", "a-1_b.c:d", '"\\={}', "~" * 128])
async def test_a_callers_own_id_is_taken_over(method: str, given: str) -> None:
    async with serving(nothing) as (channel, _, _server):
        call = begun(channel, method, (KEY, given))
        assert await end_of(call) is None
        assert ids_in(await call.trailing_metadata()) == [given]


@pytest.mark.parametrize("given", ["two words", "a" * 129, "tla_" + "0" * 32, "eyJhbGciOiJub25l"])
async def test_an_id_that_is_not_sane_or_may_be_a_secret_is_replaced(given: str) -> None:
    async with serving(nothing) as (channel, _, _server):
        call = begun(channel, "unary", (KEY, given))
        assert await end_of(call) is None
        [told] = ids_in(await call.trailing_metadata())

    assert OURS.fullmatch(told)


async def test_no_two_calls_have_the_same_id() -> None:
    async with serving(nothing) as (channel, _, _server):
        calls = [begun(channel, "unary") for _ in range(50)]
        await asyncio.gather(*calls)
        told = [ids_in(await call.trailing_metadata())[0] for call in calls]

    assert len(set(told)) == 50


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("do", [not_found, unexpected])
async def test_an_error_has_the_id_in_its_details_and_its_trailers_and_no_headers(
    method: str, do: Any
) -> None:
    async with serving(do) as (channel, _, _server):
        call = begun(channel, method, (KEY, "mine"))
        error = await end_of(call)
        of_the_beginning = list(await call.initial_metadata() or ())

    assert error is not None
    assert refusal_of(error).request_id == "mine"
    assert ids_in(error.trailing_metadata()) == ["mine"]
    # A client may retry a call by itself as long as it has no initial metadata.
    assert of_the_beginning == []


async def test_an_error_after_a_message_has_the_id_of_the_initial_metadata() -> None:
    async def fails_at_the_second(context: Any) -> None:
        await context.write(b"first")
        raise TaskNotFound("local/x")

    async with serving(fails_at_the_second) as (channel, _, _server):
        call = begun(channel, "writing")
        error = await end_of(call)
        [of_the_beginning] = ids_in(await call.initial_metadata())

    assert error is not None
    assert refusal_of(error).request_id == of_the_beginning


async def test_a_method_that_does_not_exist_is_refused_with_details() -> None:
    async with serving(nothing) as (channel, _, _server):
        error = await end_of(begun(channel, "absent", (KEY, "mine")))

    assert error is not None
    refusal = refusal_of(error)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNIMPLEMENTED, "METHOD_UNKNOWN")
    assert refusal.request_id == "mine"


async def test_a_server_in_the_context_of_another_call_takes_no_id_and_no_token_from_it() -> None:
    tokens: list[str | None] = []

    async def note(context: Any) -> None:
        tokens.append(bearer_of(context))

    Call("/another/call", ((KEY, "another"), ("authorization", "Bearer another"))).make_current()
    async with serving(note) as (channel, _, _server):
        for token in ("one", "two"):
            call = begun(channel, "unary", (KEY, token), ("authorization", f"Bearer {token}"))
            await call
            assert ids_in(await call.trailing_metadata()) == [token]
        await begun(channel, "unary")

    assert tokens == ["one", "two", None]


async def test_a_call_lets_go_of_its_token_as_soon_as_its_caller_is_known() -> None:
    """Tasks and connections that begin in a call keep its context, and may outlive it."""
    kept: list[object] = []

    async def note(_: Any) -> None:
        call = current()
        assert call is not None
        kept.append(call.metadata)

    async with serving(note) as (channel, _, _server):
        await begun(channel, "unary", ("authorization", "Bearer secret"))

    assert kept == [()]


@dataclass
class Details:
    method: str
    invocation_metadata: tuple[tuple[str, str], ...] = ()


@pytest.mark.parametrize(
    "interceptor", [interceptor_of(OpenCalls()), CallObserver(Observer())], ids=["inner", "outer"]
)
async def test_methods_that_do_not_exist_leave_nothing_behind(interceptor: Any) -> None:
    async def inner(_: Any) -> Any:
        return None if isinstance(interceptor, CallInterceptor) else failures.UNKNOWN_METHOD

    made = {id(await interceptor.intercept_service(inner, Details(f"/a/{n}"))) for n in range(9)}

    assert made == {id(failures.UNKNOWN_METHOD)}
    assert interceptor._wrapped == {}


async def test_an_unexpected_error_is_logged_under_the_id_that_its_caller_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with written_log(monkeypatch), serving(unexpected) as (channel, _, _server):
        error = await end_of(begun(channel, "unary"))

    assert error is not None
    told = refusal_of(error).request_id
    assert told is not None
    assert f'"request_id": "{told}"' in capsys.readouterr().err
