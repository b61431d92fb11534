"""Connections to Postgres are lost during COMMIT, so the server cannot know whether it committed.

`marker` is part of a statement. If the statement itself is lost, nothing is committed. If only its
answer is lost, everything is committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import pytest

from tasklogs_server.domain.errors import SessionLost, StoreUnavailable
from tasklogs_server.store import Store
from tests.ingest.desk import HELLO, Desk, entry, grown
from tests.store.logs import Connection, Log, new_task
from tests.support.fakes.faulty_proxy import FaultyProxy
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.system.faults.database_network import database_network


@dataclass
class Scene:
    network: FaultyProxy
    store: Store
    desk: Desk
    task: UUID


@pytest.fixture
async def scene(database: str) -> AsyncIterator[Scene]:
    async with database_network(database) as (network, dsn):
        store = await Store.open(dsn, read_connections=4, lease=timedelta(seconds=30))
        async with Desk.open(store) as desk:
            yield Scene(network, store, desk, await new_task(store, standalone=True))
        await store.close()


def log_of(scene: Scene) -> Log:
    return Log(scene.store, scene.task, 0, None)  # type: ignore[arg-type]


async def is_connected(scene: Scene) -> bool:
    return (await scene.store.tasks.get(scene.task)).agent_connected


@pytest.mark.parametrize("is_committed", [True, False])
async def test_a_lost_commit_is_not_acknowledged_and_its_retry_stores_everything_once(
    scene: Scene, is_committed: bool
) -> None:
    desk, other_task = scene.desk, await new_task(scene.store)
    async with desk.agent(scene.task) as agent, desk.agent(other_task) as other:
        await agent.append([entry(0, "before")], open_epoch=True)
        await agent.all_acked()
        await other.append([entry(0, "before")], open_epoch=True)
        await other.all_acked()

        scene.network.cut_at(b"the marker", passes=is_committed)
        await agent.append(tail=grown(0, 6, ", the marker"))
        await asyncio.wait_for(agent.has_ended.wait(), DEADLINE_SECONDS)
        assert isinstance(agent.error, SessionLost)
        assert agent.acked == 1
        assert scene.network.cuts == 1
        # The batch had only this session. The next one of the other session uses a new connection.
        await other.append([entry(1, "after")])
        await other.all_acked()

    stored = "before, the marker" if is_committed else "before"
    async with desk.agent(scene.task) as again:
        tail = again.session.welcome.position.tail
        assert tail is not None
        assert tail.content_bytes == len(stored)
        assert again.session.welcome.revision == (3 if is_committed else 2)
        await again.append(tail=grown(0, len(stored), ", the marker"[len(stored) - 6 :] + "!"))
        await again.all_acked()
    assert await log_of(scene).contents() == ["before, the marker!"]


async def test_a_lost_commit_ends_all_sessions_of_its_batch(scene: Scene) -> None:
    desk, other_task = scene.desk, await new_task(scene.store)
    async with desk.agent(scene.task) as agent, desk.agent(other_task) as other:
        for one in (agent, other):
            await one.append([entry(0)], open_epoch=True)
            await one.all_acked()
        scene.network.cut_at(b"the marker", passes=False)
        # These appends wait for nothing, so the commits are in one batch.
        await agent.append([entry(1, "the marker")])
        await other.append([entry(1, "beside it")])
        for one in (agent, other):
            await asyncio.wait_for(one.has_ended.wait(), DEADLINE_SECONDS)
            assert isinstance(one.error, SessionLost)
            assert one.acked == 1
        assert scene.network.cuts == 1
    for task in (scene.task, other_task):
        async with desk.agent(task) as again:
            assert again.session.welcome.position.entries == 1


@pytest.mark.parametrize("is_committed", [True, False])
async def test_a_handshake_whose_commit_is_lost_does_not_leave_the_task_connected(
    scene: Scene, is_committed: bool
) -> None:
    scene.network.cut_at(b"COMMIT", passes=is_committed)
    with pytest.raises(StoreUnavailable):
        await scene.desk.sessions.connect(scene.task, HELLO).__aenter__()
    assert scene.network.cuts == 1
    assert await is_connected(scene) == is_committed
    await scene.desk.sessions.tick()
    assert not await is_connected(scene)


@pytest.mark.parametrize("is_committed", [True, False])
async def test_a_lost_handshake_does_not_end_the_session_after_it(
    scene: Scene, is_committed: bool, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    fence = await sql.fetchval("SELECT fence FROM log_heads WHERE task_id = $1", scene.task)
    scene.network.cut_at(b"COMMIT", passes=is_committed)
    with pytest.raises(StoreUnavailable):
        await scene.desk.sessions.connect(scene.task, HELLO).__aenter__()
    lost: list[int] = []
    lose_sessions = scene.store.sessions.lose_sessions

    async def noted(serials: Collection[int]) -> Collection[int]:
        lost.extend(serials)
        return await lose_sessions(serials)

    monkeypatch.setattr(scene.store.sessions, "lose_sessions", noted)
    await scene.desk.sessions.tick()
    assert len(lost) == is_committed
    monkeypatch.undo()
    async with scene.desk.agent(scene.task) as agent:
        # A fence that was never committed belonged to no session. It may be given out again.
        assert agent.session.fence == fence + (2 if is_committed else 1)
        # Stands for a statement that was in progress when the session began and arrives now.
        await scene.store.sessions.lose_sessions(lost or [agent.session.serial - 1])
        await scene.desk.sessions.tick()
        assert await is_connected(scene)
    assert not await is_connected(scene)


async def test_a_lost_handshake_does_not_end_the_session_of_another_process(
    scene: Scene, database: str
) -> None:
    scene.network.cut_at(b"COMMIT", passes=False)
    with pytest.raises(StoreUnavailable):
        await scene.desk.sessions.connect(scene.task, HELLO).__aenter__()
    elsewhere = await Store.open(database, read_connections=2, lease=timedelta(seconds=30))
    async with Desk.open(elsewhere) as desk, desk.agent(scene.task) as agent:
        await scene.desk.sessions.tick()
        assert agent.session.is_open
        assert await is_connected(scene)
    await elsewhere.close()


@pytest.mark.parametrize("is_committed", [True, False])
async def test_a_task_is_not_connected_after_a_lost_handshake_and_the_end_of_its_session(
    scene: Scene, is_committed: bool
) -> None:
    async with scene.desk.agent(scene.task):
        scene.network.cut_at(b"COMMIT", passes=is_committed)
        with pytest.raises(StoreUnavailable):
            await scene.desk.sessions.connect(scene.task, HELLO).__aenter__()
        assert await is_connected(scene)
    assert not await is_connected(scene)


@pytest.mark.parametrize("is_committed", [True, False])
async def test_an_upload_whose_commit_is_lost_is_unavailable_and_can_be_repeated(
    scene: Scene, is_committed: bool
) -> None:
    entries = [entry(0, "the marker"), entry(1, "and more")]
    scene.network.cut_at(b"the marker", passes=is_committed)
    with pytest.raises(StoreUnavailable):
        await scene.desk.uploads.upload(scene.task, entries)
    stored = await scene.desk.uploads.upload(scene.task, entries)
    assert stored.revision == 3
    assert await log_of(scene).contents() == ["the marker", "and more"]
