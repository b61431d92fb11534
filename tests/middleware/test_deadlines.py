"""Unary calls without a deadline get one; calls that have one, and streams, keep their time."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import grpc
import pytest

from tasklogs_server.domain.errors import TookTooLong
from tasklogs_server.middleware.deadlines import within
from tests.middleware.test_interceptor import METHODS, SERVICE, call, serving
from tests.support.fixtures.refusals import refused

SHORT = timedelta(milliseconds=10)


async def hang(_: Any) -> None:
    await asyncio.sleep(0.2)


async def test_a_handler_that_takes_longer_than_its_time_is_ended_with_an_error() -> None:
    with pytest.raises(TookTooLong):
        await within(SHORT, asyncio.Event().wait())


async def test_a_timeout_of_the_handler_itself_is_not_taken_for_the_deadline() -> None:
    async def own_timeout() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await within(timedelta(seconds=9), own_timeout())


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
