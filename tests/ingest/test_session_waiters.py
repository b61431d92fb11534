"""Readers that wait for an agent to connect."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from types import SimpleNamespace
from typing import cast
from uuid import UUID, uuid4

import pytest

from tasklogs_server.domain.errors import AgentUnreachable, ServerDraining
from tasklogs_server.ingest.session import Session
from tasklogs_server.ingest.session_waiters import SessionWaiters

A, B = uuid4(), uuid4()
SECOND = timedelta(seconds=1)


def session_of(task_id: UUID) -> Session:
    return cast("Session", SimpleNamespace(task_id=task_id))


async def test_a_session_goes_to_all_who_wait_for_its_task() -> None:
    waiters, session = SessionWaiters(), session_of(A)
    waiting = [asyncio.create_task(waiters.wait_for(A, 10 * SECOND)) for _ in range(3)]
    other = asyncio.create_task(waiters.wait_for(B, 10 * SECOND))
    await asyncio.wait(waiting, timeout=0.01)
    waiters.arrived(session)
    waiters.arrived(session_of(A))  # before they have run
    assert await asyncio.gather(*waiting) == [session] * 3
    assert not other.done()
    other.cancel()
    await asyncio.wait([other])
    assert not waiters


async def test_a_wait_ends_in_time_and_leaves_nothing_behind() -> None:
    waiters = SessionWaiters()
    with pytest.raises(AgentUnreachable) as unreachable:
        await waiters.wait_for(A, SECOND / 100)
    assert unreachable.value.waited == SECOND / 100
    assert not waiters


async def test_all_waits_can_be_ended_with_an_error() -> None:
    waiters = SessionWaiters()
    waiting = [asyncio.create_task(waiters.wait_for(one, 10 * SECOND)) for one in (A, A, B)]
    await asyncio.wait(waiting, timeout=0.01)
    waiters.fail_all(lambda: ServerDraining(SECOND))
    errors = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(one) for one in errors] == [ServerDraining] * 3
    assert not waiters
