"""One session: its appends, its acks, its window and its syncs, on a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from tasklogs.log import digest
from tasklogs.log.append import Append
from tasklogs_server.domain.errors import (
    AgentUnreachable,
    LimitExceeded,
    ProtocolViolation,
    SessionLost,
    SessionSuperseded,
    StoreUnavailable,
    TaskAppFailed,
)
from tasklogs_server.domain.names import TaskId
from tasklogs_server.store import Store
from tasklogs_server.store.log_reads import PageQuery
from tests.ingest.desk import Desk, entry, grown
from tests.store.logs import Connection, decoded, new_task, waits_for_a_lock
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until

TEN_SECONDS = timedelta(seconds=10)


async def contents(store: Store, task_id: UUID) -> list[str]:
    page = await store.reads.page(TaskId(task_id), PageQuery())
    return [one.content for one in decoded(page)]


@asynccontextmanager
async def commits_blocked(sql: Connection) -> AsyncIterator[None]:
    """Stop all commits: they wait for the lock of a table."""
    async with sql.transaction():
        await sql.execute("LOCK TABLE log_events, log_entries IN EXCLUSIVE MODE")
        yield


async def stuck(sql: Connection) -> None:
    """Wait until a commit waits in Postgres."""
    await until(lambda: waits_for_a_lock(sql))


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_appends_are_acknowledged_and_read_back(desk: Desk, task: UUID) -> None:
    async with desk.agent(task) as agent:
        await agent.append([entry(0, "a"), entry(1, "b")], open_epoch=True)
        await agent.append(tail=grown(1, 1, "c"))
        await agent.all_acked()
        assert await contents(desk.store, task) == ["a", "bc"]
    assert desk.budget.held_bytes == 0


async def test_no_ack_comes_before_the_commit_and_nothing_is_readable(
    desk: Desk, task: UUID, sql: Connection
) -> None:
    """I3 and I5."""
    async with desk.agent(task) as agent:
        async with commits_blocked(sql):
            await agent.append([entry(0, "a")], open_epoch=True)
            await stuck(sql)
            await agent.append([entry(1, "b")])
            agent.session.outbox.report_state()
            await agent.until(lambda: len(agent.heard) == 1)  # the stream itself continues
            assert agent.acked == 0
            assert await contents(desk.store, task) == []
        await agent.all_acked()
        assert await contents(desk.store, task) == ["a", "b"]


@pytest.mark.parametrize("sequence", [0, 2, -1])
async def test_sequence_numbers_run_from_one_without_gaps(
    desk: Desk, task: UUID, sequence: int
) -> None:
    async with desk.agent(task) as agent:
        agent.sent = sequence - 1
        with pytest.raises(ProtocolViolation):
            await agent.append([entry(0)], open_epoch=True)


async def test_a_fence_that_was_raised_elsewhere_ends_the_session_and_writes_nothing(
    desk: Desk, task: UUID, sql: Connection
) -> None:
    """I4."""
    async with desk.agent(task) as agent:
        await agent.append([entry(0, "a")], open_epoch=True)
        await agent.all_acked()
        await sql.execute("UPDATE log_heads SET fence = fence + 1")
        await agent.append([entry(1, "b")])
        await agent.has_ended.wait()
        assert isinstance(agent.error, SessionSuperseded)
        assert agent.acked == 1
        assert await contents(desk.store, task) == ["a"]
        with pytest.raises(SessionSuperseded):
            await agent.append([entry(2)])


async def test_a_revision_that_another_writer_changed_ends_the_session(
    desk: Desk, task: UUID, sql: Connection
) -> None:
    async with desk.agent(task) as agent:
        await sql.execute("UPDATE log_heads SET revision = 5")
        await agent.append([entry(0, "a")], open_epoch=True)
        await agent.has_ended.wait()
        assert isinstance(agent.error, SessionLost)
        assert agent.acked == 0
    assert desk.budget.held_bytes == 0


async def test_a_sender_that_never_waits_is_held_at_its_window(
    store: Store, task: UUID, sql: Connection
) -> None:
    """I7: unacknowledged bytes per session."""
    window = 64 * 1024
    async with Desk.open(store, window_bytes=window) as desk, desk.agent(task) as agent:

        async def flood() -> None:
            await agent.append(open_epoch=True)
            for number in range(200):
                await agent.append([entry(number, "x" * 4096)])

        async with commits_blocked(sql):
            sending = asyncio.create_task(flood())
            await stuck(sql)
            await until(lambda: desk.budget.held_bytes > window)
            await turns()
            assert desk.budget.held_bytes <= window + 2 * 4096
            assert agent.sent < 30
        await asyncio.wait_for(sending, DEADLINE_SECONDS)
        await agent.all_acked()
        assert desk.budget.held_bytes == 0
        assert len(await contents(store, task)) == 200


async def test_appends_without_content_fill_the_window_too(
    store: Store, task: UUID, sql: Connection
) -> None:
    async with Desk.open(store, window_bytes=16 * 1024) as desk, desk.agent(task) as agent:

        async def flood() -> None:
            await agent.append(open_epoch=True)
            for number in range(1000):
                await agent.append([entry(number, "")])

        async with commits_blocked(sql):
            sending = asyncio.create_task(flood())
            await stuck(sql)
            await until(lambda: desk.budget.held_bytes > 16 * 1024)
            await turns()
            assert agent.sent < 100
        await asyncio.wait_for(sending, DEADLINE_SECONDS)
        await agent.all_acked()


async def test_all_sessions_together_stay_within_the_process_bound(
    store: Store, sql: Connection
) -> None:
    """I7: ingest memory per process. A later append waits for its turn."""
    bound = 64 * 1024
    tasks = [await new_task(store) for _ in range(8)]
    async with Desk.open(store, ingest_bytes=bound) as desk:

        async def send(task_id: UUID) -> None:
            async with desk.agent(task_id) as agent:
                await agent.append(open_epoch=True)
                for number in range(20):
                    await agent.append([entry(number, "x" * 8192)])
                await agent.all_acked()

        async with commits_blocked(sql):
            sending = asyncio.gather(*(send(one) for one in tasks))
            await stuck(sql)
            await until(lambda: desk.budget.held_bytes > bound // 2)
            await turns()
            assert desk.budget.held_bytes <= bound
        await asyncio.wait_for(sending, DEADLINE_SECONDS)
        assert desk.budget.held_bytes == 0


async def test_bytes_of_a_commit_in_flight_are_held_until_its_outcome_and_released_once(
    desk: Desk, task: UUID, sql: Connection
) -> None:
    async with commits_blocked(sql):
        async with desk.agent(task) as agent:
            await agent.append([entry(0, "x" * 1000)], open_epoch=True)
            await stuck(sql)
            in_flight = desk.budget.held_bytes
            await agent.append([entry(1, "x" * 5000)])
            assert desk.budget.held_bytes > in_flight
        assert desk.budget.held_bytes == in_flight
    await until(lambda: desk.budget.held_bytes == 0)
    assert await contents(desk.store, task) == ["x" * 1000]


async def test_an_ended_session_leaves_nothing_with_the_group_commit(
    desk: Desk, task: UUID, sql: Connection
) -> None:
    other = await new_task(desk.store)
    async with commits_blocked(sql):
        async with desk.agent(other) as first, desk.agent(task) as agent:
            await first.append([entry(0)], open_epoch=True)
            await stuck(sql)
            await agent.append([entry(0)], open_epoch=True)
        assert not desk.group_commit._waiting
    await until(lambda: desk.budget.held_bytes == 0)
    assert desk.group_commit.held_tasks == 0


async def test_a_tail_released_while_an_append_waits_for_memory_is_read_again(
    store: Store, task: UUID, sql: Connection
) -> None:
    other = await new_task(store)
    async with Desk.open(store, ingest_bytes=10_000, tail_bytes=0) as desk:
        async with desk.agent(task) as agent:
            await agent.append([entry(0, "a"), entry(1, "b")], open_epoch=True)
            await agent.all_acked()
        async with desk.agent(task) as agent, desk.agent(other) as greedy:
            async with commits_blocked(sql):
                await greedy.append([entry(0, "x" * 9_500)], open_epoch=True)
                await stuck(sql)
                appending = asyncio.create_task(agent.append([entry(2, "c" * 1000)]))
                await turns()
                assert not appending.done()
                agent.session.release_tail()
            await asyncio.wait_for(appending, DEADLINE_SECONDS)
            await agent.all_acked()
        # The digest is right only if the tail was sealed. A new session continues from it.
        async with desk.agent(task) as agent:
            sealed = digest.seal_all([entry(0, "a"), entry(1, "b")])
            assert agent.session.welcome.position.digest == sealed


async def test_a_tail_that_cannot_be_read_ends_the_append_and_holds_no_bytes(
    desk: Desk, task: UUID
) -> None:
    async with desk.agent(task) as agent:
        await agent.append([entry(0, "a")], open_epoch=True)
        await agent.all_acked()
        agent.session.release_tail()

        async def fail(task_id: UUID) -> bytes:
            raise StoreUnavailable(timedelta(seconds=1))

        agent.session._resources = replace(agent.session._resources, load_tail=fail)
        with pytest.raises(StoreUnavailable):
            await agent.append([entry(1, "b")])
        assert desk.budget.held_bytes == 0


async def test_more_than_sixty_epochs_an_hour_are_refused_even_in_one_burst(
    desk: Desk, task: UUID
) -> None:
    async with desk.agent(task) as agent:
        for _ in range(60):
            await agent.append([entry(0)], open_epoch=True)
        with pytest.raises(LimitExceeded):
            await agent.append([entry(0)], open_epoch=True)


async def test_a_sync_is_done_when_the_appends_before_its_answer_are_committed(
    desk: Desk, task: UUID, sql: Connection
) -> None:
    async with desk.agent(task) as agent:
        began_at = desk.clock.now
        syncing = asyncio.create_task(agent.session.sync(TEN_SECONDS))
        await agent.until(lambda: len(agent.syncs) == 1)
        async with commits_blocked(sql):
            await agent.append([entry(0, "a")], open_epoch=True)
            agent.session.sync_done(agent.syncs[0])
            desk.clock.advance(1)
            await stuck(sql)
            assert not syncing.done()
        assert (await syncing).began_at == began_at
        assert await contents(desk.store, task) == ["a"]
        assert desk.write_behind.confirmed_at(task, 100) == began_at


async def test_a_sync_with_nothing_new_is_done_at_once(desk: Desk, task: UUID) -> None:
    async with desk.agent(task) as agent:
        agent.answers_syncs = True
        assert (await agent.session.sync(TEN_SECONDS)).began_at == desk.clock.now


async def test_a_sync_that_fails_has_the_agents_reason(desk: Desk, task: UUID) -> None:
    async with desk.agent(task) as agent:
        syncing = asyncio.create_task(agent.session.sync(TEN_SECONDS))
        await agent.until(lambda: len(agent.syncs) == 1)
        agent.session.sync_failed(agent.syncs[0], "HTTP 500")
        agent.session.sync_failed(agent.syncs[0], "again")
        agent.session.sync_failed(77, "of no sync")
        agent.session.sync_done(78)
        with pytest.raises(TaskAppFailed) as failed:
            await syncing
        assert failed.value.reason == "HTTP 500"
        assert desk.write_behind.confirmed_at(task, 100) is None


async def test_a_sync_without_an_answer_fails_in_time_and_is_forgotten(
    desk: Desk, task: UUID
) -> None:
    async with desk.agent(task) as agent:
        with pytest.raises(TaskAppFailed):
            await agent.session.sync(timedelta(seconds=0.05))
        assert not agent.session.syncs.under_way


async def test_a_session_that_ends_during_a_sync_fails_the_sync(desk: Desk, task: UUID) -> None:
    async with desk.agent(task) as agent:
        syncing = asyncio.create_task(agent.session.sync(TEN_SECONDS))
        await agent.until(lambda: len(agent.syncs) == 1)
    with pytest.raises(AgentUnreachable):
        await asyncio.wait_for(syncing, DEADLINE_SECONDS)


async def test_an_append_that_breaks_the_rules_commits_nothing_of_itself(
    desk: Desk, task: UUID
) -> None:
    async with desk.agent(task) as agent:
        await agent.append([entry(0, "a")], open_epoch=True)
        await agent.all_acked()
        with pytest.raises(ProtocolViolation) as violation:
            await agent.append([entry(5, "b"), entry(4, "c")])
        agent.session.end(violation.value)  # as the service does
        await agent.has_ended.wait()
    assert await contents(desk.store, task) == ["a"]
    assert desk.budget.held_bytes == 0


async def test_a_session_that_has_ended_accepts_nothing(desk: Desk, task: UUID) -> None:
    async with desk.agent(task) as agent:
        agent.session.end(None)
        with pytest.raises(SessionLost):
            await agent.session.append(Append(1))
        assert agent.session.next_commit() is None
