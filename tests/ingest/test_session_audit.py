"""The audit ends sessions that have ended elsewhere, with the reason that their agents need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from typing import cast
from uuid import UUID

import pytest

from tasklogs_server.domain.errors import (
    SessionLost,
    SessionSuperseded,
    StoreUnavailable,
    Unauthenticated,
)
from tasklogs_server.domain.synced import Synced
from tasklogs_server.ingest import session_audit
from tasklogs_server.ingest.session import Session
from tasklogs_server.ingest.session_audit import SessionAudit
from tasklogs_server.store.circuit_breaker import CircuitBreaker
from tasklogs_server.store.session_audit import AuditedTask, HeldSession
from tasklogs_server.store.sessions import SessionStore
from tests.fuzz.virtual_time import VirtualTimeLoop
from tests.ingest.desk import HELLO, Desk, entry
from tests.store.logs import Connection, Log

TOKEN_HASH = bytes(32)
"""That of the tasks that tests create."""


@asynccontextmanager
async def auditing(desk: Desk) -> AsyncIterator[None]:
    running = asyncio.create_task(desk.sessions.run_audit())
    try:
        yield
        assert not running.done(), "the audit goes on, whatever happens"
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_it_comes_at_once_when_the_store_is_back(
    desk: Desk, task: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_audit, "AUDIT_SECONDS", 3600)
    async with desk.agent(task) as agent, auditing(desk):
        await asyncio.sleep(0)
        await Log.open(desk.store, task)
        desk.sessions._circuit_breaker.lost()
        desk.sessions._circuit_breaker.found()
        await asyncio.wait_for(agent.has_ended.wait(), 60)
        assert isinstance(agent.error, SessionSuperseded)


async def test_it_goes_on_after_failures(
    desk: Desk, task: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[Exception] = [StoreUnavailable(timedelta(seconds=1)), ZeroDivisionError()]
    ask = desk.store.sessions.audit

    async def audit(held: list[HeldSession]) -> object:
        if failures:
            raise failures.pop()
        return await ask(held)

    monkeypatch.setattr(session_audit, "AUDIT_SECONDS", 0.01)
    monkeypatch.setattr(desk.store.sessions, "audit", audit)
    async with desk.agent(task) as agent, auditing(desk):
        await Log.open(desk.store, task)
        await asyncio.wait_for(agent.has_ended.wait(), 60)
    assert not failures


def test_the_audits_of_several_processes_do_not_come_in_step() -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        first, second = runner.run(_moments_of_audits()), runner.run(_moments_of_audits())
    assert not set(first) & set(second)


async def _moments_of_audits() -> list[float]:
    """Return after how many seconds the first ten audits came."""
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    moments: list[float] = []
    are_ten = asyncio.Event()

    def no_sessions() -> list[Session]:
        moments.append(loop.time() - began_at)
        if len(moments) == 10:
            are_ten.set()
        return []

    audit = SessionAudit(cast(SessionStore, None), no_sessions, lambda _: None, CircuitBreaker())
    running = asyncio.create_task(audit.run())
    await are_ten.wait()
    running.cancel()
    await asyncio.wait([running])
    pauses = [later - earlier for earlier, later in pairwise([0.0, *moments])]
    assert all(0 < pause <= session_audit.AUDIT_SECONDS for pause in pauses)
    return moments


async def test_sessions_that_commit_meanwhile_are_left_alone(desk: Desk, task: UUID) -> None:
    async with desk.agent(task) as agent:
        for number in range(20):
            await agent.append([entry(number)], open_epoch=not number)
            await desk.sessions._audit.examine([agent.session])
        await agent.all_acked()
        assert agent.session.is_open


async def test_a_session_whose_token_is_the_stored_one_was_not_rotated_away(
    desk: Desk, task: UUID, sql: Connection
) -> None:
    """An upload may raise the fence while this process seems dead: the agent connects again."""
    async with desk.sessions.connect(task, HELLO, token_hash=TOKEN_HASH) as session:
        await sql.execute("UPDATE log_heads SET fence = fence + 1")
        await desk.sessions._audit.examine([session])
        with pytest.raises(SessionLost):
            await session.flush()


async def test_a_session_whose_token_was_rotated_is_told_so(desk: Desk, task: UUID) -> None:
    async with desk.sessions.connect(task, HELLO, token_hash=TOKEN_HASH) as session:
        await desk.store.tasks.rotate_token(task, b"new")
        await desk.sessions._audit.examine([session])
        with pytest.raises(Unauthenticated):
            await session.flush()


async def test_a_refuted_session_ends_even_if_the_store_is_away_or_names_it(
    desk: Desk, task: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(held: object) -> list[AuditedTask]:
        raise StoreUnavailable(timedelta(seconds=1))

    async with desk.agent(task) as agent:
        await desk.sessions.refute(task, agent.session.fence - 1)
        assert desk.sessions.find(task) is agent.session, "another session was refuted"
        await desk.sessions.refute(task, agent.session.fence)
        assert desk.sessions.find(task) is None
    monkeypatch.setattr(desk.store.sessions, "audit", away)
    async with desk.agent(task) as agent:
        await desk.sessions.refute(task, agent.session.fence)
        assert desk.sessions.find(task) is None


async def test_a_sync_returns_the_revision_that_it_rests_on(desk: Desk, task: UUID) -> None:
    async with desk.agent(task) as agent:
        agent.answers_syncs = True
        began_at, fence = desk.clock.now, agent.session.fence
        assert await desk.sync(task) == Synced(began_at, fence, revision=0)
        await agent.append([entry(0)], open_epoch=True)
        await agent.all_acked()
        assert await desk.sync(task) == Synced(began_at, fence, revision=2)
