"""The store goes back in time under open sessions, handshakes and uploads."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from tasklogs_server.domain.errors import AgentUnreachable, SessionLost, StoreUnavailable
from tasklogs_server.store import Store
from tasklogs_server.store.records import GENERATION_GAP
from tasklogs_server.store.sessions import Opening
from tests.ingest.desk import HELLO, Desk, entry
from tests.store.logs import Connection
from tests.support.fixtures.conditions import DEADLINE_SECONDS

FORMER = "1/00000001"


def change(store: Store) -> None:
    """Let the generation change. This Postgres remains the current primary."""
    current = store.generations.current

    store.generations.observe(FORMER)
    store.generations.observe(current)


async def test_all_sessions_end_and_the_next_ones_start_again_from_welcome(
    desk: Desk, task: UUID, sql: Connection
) -> None:
    async with desk.agent(task) as agent:
        await agent.append([entry(0, "kept"), entry(1, "lost")], open_epoch=True)
        await agent.all_acked()
        syncing = asyncio.create_task(agent.session.sync(desk.syncs._sync_timeout))
        await agent.until(lambda: bool(agent.syncs))
        # The standby had replayed this much.
        await sql.execute("DELETE FROM log_entries WHERE ordinal = 1")
        await sql.execute(
            "UPDATE log_heads SET generation = $1, revision = 2, entries = 1, bytes = 4,"
            " tail_id = 0, tail_seconds = 0, tail_nanos = 0, tail_revision = 2, total_rows = 2,"
            " digest = decode(repeat('00', 32), 'hex')",
            FORMER,
        )
        change(desk.store)
        await asyncio.wait_for(agent.has_ended.wait(), DEADLINE_SECONDS)
        assert isinstance(agent.error, SessionLost)
        with pytest.raises(AgentUnreachable):
            await syncing
        assert desk.sessions.find(task) is None
        assert desk.write_behind.confirmed_at(task, 0) is None
    async with desk.agent(task) as again:
        welcome = again.session.welcome
        assert (welcome.position.entries, welcome.revision) == (1, 2 + GENERATION_GAP)
        await again.append([entry(1, "lost")])
        await again.all_acked()
    head = (await desk.store.tasks.get(task)).head
    assert (head.entries, head.revision, head.lost_after) == (2, 3 + GENERATION_GAP, (2,))


async def test_a_session_is_not_superseded_by_one_of_the_lost_history_that_is_still_leaving(
    desk: Desk, task: UUID, sql: Connection
) -> None:
    for _ in range(3):
        async with desk.agent(task):
            pass
    async with desk.agent(task) as leaving:
        await sql.execute("UPDATE log_heads SET generation = $1, fence = 1", FORMER)
        change(desk.store)
        async with desk.agent(task) as again:
            assert again.session.fence > leaving.session.fence
            await again.append([entry(0)], open_epoch=True)
            await again.all_acked()


async def test_a_handshake_that_the_change_overtakes_is_no_session(
    desk: Desk, task: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_session = desk.store.sessions.open_session

    async def then_changed(*args: Any, **kwargs: Any) -> Opening:
        opening = await open_session(*args, **kwargs)
        desk.store.generations.observe(FORMER)
        return opening

    monkeypatch.setattr(desk.store.sessions, "open_session", then_changed)
    with pytest.raises(StoreUnavailable):
        await desk.sessions.connect(task, HELLO).__aenter__()
    assert desk.sessions.open_count == 0
    await desk.sessions.tick()
    assert not (await desk.store.tasks.get(task)).agent_connected


async def test_a_time_that_a_late_sync_confirms_is_dropped(desk: Desk, task: UUID) -> None:
    async with desk.agent(task) as agent:
        session = agent.session
        syncing = asyncio.create_task(desk.sync(task))
        await agent.until(lambda: bool(agent.syncs))
        session.sync_done(agent.syncs[0])  # the waiting task has not run yet
        desk.store.generations.observe(FORMER)
        await asyncio.wait([syncing])
        assert isinstance(syncing.exception(), AgentUnreachable | None)
        assert desk.write_behind.confirmed_at(task, 0) is None


def opened_before(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let uploads begin on the former primary. What follows finds the new one."""
    open_upload = desk.store.sessions.open_upload

    async def on_the_former_primary(task_id: UUID) -> Opening:
        opening = await open_upload(task_id)
        return replace(opening, head=replace(opening.head, generation=FORMER))

    monkeypatch.setattr(desk.store.sessions, "open_upload", on_the_former_primary)


@pytest.mark.parametrize("size_bytes", [1, 600_000], ids=["small", "large"])
async def test_an_upload_that_began_before_the_change_is_not_stored(
    desk: Desk, task: UUID, monkeypatch: pytest.MonkeyPatch, size_bytes: int
) -> None:
    shown = [entry(number, "x" * size_bytes) for number in range(10)]
    await desk.uploads.upload(task, shown[:2])
    before = (await desk.store.tasks.get(task)).head
    with monkeypatch.context() as patched:
        opened_before(desk, patched)
        with pytest.raises(SessionLost):
            await desk.uploads.upload(task, shown)
    assert (await desk.store.tasks.get(task)).head == before
    assert (await desk.uploads.upload(task, shown)).revision > before.revision


async def test_an_upload_is_not_compared_with_another_history_than_it_began_with(
    desk: Desk, task: UUID, monkeypatch: pytest.MonkeyPatch, sql: Connection
) -> None:
    shown = [entry(number) for number in range(3)]
    await desk.uploads.upload(task, shown)
    opened_before(desk, monkeypatch)
    await sql.execute("DELETE FROM log_entries WHERE ordinal = 1")
    with pytest.raises(StoreUnavailable):
        await desk.uploads.upload(task, shown[:2])
