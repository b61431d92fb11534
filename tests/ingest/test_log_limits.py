"""Limits of a log: appends evict the oldest entries, and are refused if these are too young."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from tasklogs_server.domain.errors import AgentUnreachable, LogFull
from tasklogs_server.domain.names import TaskId
from tasklogs_server.store import Store
from tasklogs_server.store.evictions import LogLimits
from tasklogs_server.store.log_reads import PageQuery
from tests.ingest.desk import Desk, entry, grown
from tests.store.logs import Connection, decoded, new_task
from tests.store.test_evictions import rows_of

KIB = 1024
ROWS = LogLimits(rows=100, bytes=1 << 30, min_retention=timedelta(0))
BYTES = LogLimits(rows=1_000_000, bytes=100 * KIB, min_retention=timedelta(0))
YOUNG = LogLimits(rows=10, bytes=1 << 30, min_retention=timedelta(days=1))


async def contents(desk: Desk, task: UUID, epoch: int | None = None) -> list[str]:
    page = await desk.store.reads.page(TaskId(task), PageQuery(epoch=epoch))
    return [one.content for one in decoded(page)]


async def test_a_log_that_grows_past_its_entries_loses_the_oldest(
    store: Store, task: UUID, sql: Connection
) -> None:
    async with Desk.open(store, log_limits=ROWS) as desk, desk.agent(task) as agent:
        await agent.append([entry(0, "0")], open_epoch=True)
        for number in range(1, 500):
            await agent.append([entry(number, str(number))])
            assert await rows_of(sql, task) <= 100
        await agent.all_acked()
        held = await contents(desk, task)
        assert held == [str(number) for number in range(500 - len(held), 500)]
        assert 90 <= len(held) <= 100


async def test_a_log_that_grows_past_its_bytes_loses_the_oldest(store: Store, task: UUID) -> None:
    async with Desk.open(store, log_limits=BYTES) as desk, desk.agent(task) as agent:
        await agent.append([entry(0, "0" * KIB)], open_epoch=True)
        for number in range(1, 300):
            await agent.append([entry(number, str(number) * 100)])
            await agent.append(tail=grown(number, 100, "x" * KIB))
        await agent.all_acked()
        head = (await store.tasks.get(task)).head
        assert 80 * KIB < head.held_bytes <= 100 * KIB
        assert sum(map(len, await contents(desk, task))) == head.held_bytes
        assert head.entries == 300


async def test_an_agent_that_returns_goes_on_in_the_same_epoch(store: Store, task: UUID) -> None:
    async with Desk.open(store, log_limits=ROWS) as desk:
        async with desk.agent(task) as first:
            await first.append([entry(number) for number in range(60)], open_epoch=True)
            await first.append([entry(number) for number in range(60, 120)])
            await first.all_acked()
        before = (await store.tasks.get(task)).head
        async with desk.agent(task) as second:
            position = second.session.welcome.position
            assert (position.epoch, position.entries, position.digest) == (1, 120, before.digest)
            assert position.tail is not None
            await second.append([entry(120)])
            await second.all_acked()
        assert (await store.tasks.get(task)).head.entries == 121


async def test_young_entries_stay_and_the_append_is_refused(
    store: Store, task: UUID, sql: Connection
) -> None:
    async with Desk.open(store, log_limits=YOUNG) as desk, desk.agent(task) as agent:
        await agent.append([entry(number, str(number)) for number in range(9)], open_epoch=True)
        with pytest.raises(LogFull) as full:
            await agent.append([entry(9)])
        assert timedelta(minutes=1) <= full.value.retry_after <= timedelta(hours=1)
        assert (full.value.entries, full.value.min_retention) == (10, timedelta(days=1))
        # Earlier appends are committed and can be read.
        assert await contents(desk, task) == [str(number) for number in range(9)]
        # The same conversation in a new epoch evicts nothing either.
        agent.sent = agent.session._window.received_sequence
        with pytest.raises(LogFull):
            await agent.append([entry(0)], open_epoch=True)
        assert await rows_of(sql, task) == 10


async def test_an_append_is_accepted_once_entries_are_old_enough(
    store: Store, task: UUID, sql: Connection
) -> None:
    async with Desk.open(store, log_limits=YOUNG) as desk, desk.agent(task) as agent:
        await agent.append([entry(number, str(number)) for number in range(9)], open_epoch=True)
        with pytest.raises(LogFull):
            await agent.append([entry(9)])
        await sql.execute(
            "UPDATE log_entries SET committed_at = committed_at - interval '25 hours'"
        )
        agent.sent = agent.session._window.received_sequence
        await agent.append([entry(9, "9")])
        await agent.all_acked()
        assert await contents(desk, task) == [str(number) for number in range(1, 10)]


async def test_a_full_log_does_not_stop_other_logs(store: Store, task: UUID) -> None:
    other = await new_task(store)
    async with (
        Desk.open(store, log_limits=YOUNG) as desk,
        desk.agent(task) as full,
        desk.agent(other) as free,
    ):
        await full.append([entry(number) for number in range(9)], open_epoch=True)
        await free.append([entry(0)], open_epoch=True)
        with pytest.raises(LogFull):
            await full.append([entry(9)])
        for number in range(1, 5):
            await free.append([entry(number)])
        await free.all_acked()


async def test_a_sync_of_a_refused_agent_fails_like_one_of_a_lost_stream(
    store: Store, task: UUID
) -> None:
    async with (
        Desk.open(store, log_limits=YOUNG, agent_wait=0.1) as desk,
        desk.agent(task) as agent,
    ):
        await agent.append([entry(number) for number in range(9)], open_epoch=True)
        sync = asyncio.create_task(desk.sync(task))
        await agent.until(lambda: len(agent.syncs) == 1)
        with pytest.raises(LogFull) as full:
            await agent.append([entry(9)])
        agent.session.end(full.value)  # as the service does
        with pytest.raises(AgentUnreachable):
            await sync
        await agent.has_ended.wait()
        assert agent.error is full.value


async def test_uploads_evict_and_are_refused_like_streams(
    store: Store, task: UUID, sql: Connection
) -> None:
    shown = [entry(number, str(number)) for number in range(30)]
    async with Desk.open(store, log_limits=YOUNG) as desk:
        await desk.uploads.upload(task, shown[:9])
        with pytest.raises(LogFull):
            await desk.uploads.upload(task, shown[:12])
        assert desk.budget.held_bytes == 0
        await sql.execute(
            "UPDATE log_entries SET committed_at = committed_at - interval '25 hours'"
        )
        await desk.uploads.upload(task, shown[:12])
        held = await contents(desk, task)
        assert held == [str(number) for number in range(4, 12)]
        # An older save whose beginning was evicted is still a part of the stored log.
        revision = (await desk.uploads.upload(task, shown[:11])).revision
        assert revision == (await desk.uploads.upload(task, shown[:5])).revision
        assert (await store.tasks.get(task)).head.epoch == 1


async def test_an_agent_may_open_as_many_epochs_an_hour_as_the_setting_says(
    store: Store, task: UUID
) -> None:
    async with Desk.open(store, epochs_per_hour=3) as desk, desk.agent(task) as agent:
        for number in range(3):
            await agent.append([entry(0, str(number))], open_epoch=True)
        with pytest.raises(Exception, match="3 new epochs in an hour"):
            await agent.append([entry(0, "3")], open_epoch=True)
        assert await contents(desk, task) == ["2"]


async def test_evicted_epochs_still_count_for_the_epochs_of_an_hour(
    store: Store, task: UUID
) -> None:
    async with (
        Desk.open(store, log_limits=ROWS, epochs_per_hour=50) as desk,
        desk.agent(task) as agent,
    ):
        for _ in range(50):
            await agent.append([entry(number) for number in range(20)], open_epoch=True)
        with pytest.raises(Exception, match="50 new epochs in an hour"):
            await agent.append([entry(0)], open_epoch=True)
