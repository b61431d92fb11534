"""Unary calls without a deadline get one; calls that have one, and streams, keep their time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any, TypeVar

import grpc
import pytest

from tasklogs_server.domain.errors import TookTooLong
from tasklogs_server.middleware.deadlines import DefaultDeadline
from tests.middleware.test_interceptor import METHODS, SERVICE, call, serving
from tests.support.fixtures.refusals import refused

SHORT = timedelta(milliseconds=10)
T = TypeVar("T")


async def hang(_: Any) -> None:
    await asyncio.sleep(0.2)


async def within(deadline: DefaultDeadline, answering: Awaitable[T]) -> T:
    """Await a handler in the current task, as a call does."""
    call = asyncio.current_task()
    assert call is not None
    return await deadline.within(call, answering)


async def test_a_handler_that_takes_longer_than_its_time_is_ended_with_an_error() -> None:
    call = asyncio.current_task()
    assert call is not None

    with pytest.raises(TookTooLong):
        await within(DefaultDeadline(SHORT), asyncio.Event().wait())
    assert not call.cancelling()


async def test_a_timeout_of_the_handler_itself_is_not_taken_for_the_deadline() -> None:
    async def own_timeout() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await within(DefaultDeadline(timedelta(seconds=9)), own_timeout())


async def test_an_error_that_the_deadline_causes_in_a_handler_is_the_handlers_own() -> None:
    async def fail_when_cancelled() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise KeyError from None

    call = asyncio.current_task()
    assert call is not None
    with pytest.raises(KeyError):
        await within(DefaultDeadline(SHORT), fail_when_cancelled())
    assert not call.cancelling()


async def test_calls_end_in_turn_and_those_that_were_answered_do_not() -> None:
    deadline, released = DefaultDeadline(SHORT), asyncio.Event()
    ended: list[int] = []

    async def call(number: int) -> None:
        with pytest.raises(TookTooLong):
            await within(deadline, asyncio.Event().wait())
        ended.append(number)

    answered = asyncio.create_task(within(deadline, released.wait()))
    calls = [asyncio.create_task(call(number)) for number in range(3)]
    await asyncio.sleep(0)
    released.set()
    assert await answered
    await asyncio.gather(*calls)
    await call(3)  # it came when none was left
    assert ended == [0, 1, 2, 3]


async def test_a_caller_who_leaves_when_the_time_is_over_has_left() -> None:
    async def leave_when_cancelled() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            calling.cancel()
            raise

    calling = asyncio.create_task(within(DefaultDeadline(SHORT), leave_when_cancelled()))
    await asyncio.wait([calling])
    assert calling.cancelled()


async def test_a_unary_call_without_a_deadline_ends_by_the_default_one() -> None:
    async with serving(hang, default_deadline=SHORT) as (channel, _, _server):
        refusal = await refused(call(channel, "unary"))

    assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_unary_call_with_a_deadline_of_its_own_is_answered_after_the_default_one() -> None:
    async with serving(hang, default_deadline=SHORT) as (channel, _, _server):
        unary: Any = channel.unary_unary(f"/{SERVICE}/unary")
        assert await unary(b"request", timeout=60) == b"request"


@pytest.mark.parametrize("method", [one for one in METHODS if one != "unary"])
async def test_a_stream_has_no_default_deadline(method: str) -> None:
    async with serving(hang, default_deadline=SHORT) as (channel, _, _server):
        assert await call(channel, method) == b"request"
