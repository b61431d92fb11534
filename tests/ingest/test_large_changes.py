"""Large changes of sessions: commits of other tasks do not wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from tasklogs_server.domain.errors import SessionLost, SessionSuperseded, StoreUnavailable
from tasklogs_server.ingest.messages import Ack, GoodbyeReason
from tasklogs_server.store import Store
from tasklogs_server.store.log_writes import Outcome
from tasklogs_server.store.records import Commit
from tests.ingest.desk import Desk, DeskAgent, entry, grown
from tests.ingest.test_group_commit import ScriptedWriter
from tests.store.logs import Connection, Log, new_task
from tests.support.fixtures.conditions import until

LARGE = "x" * 900_000
_LARGE_BYTES = 256 * 1024


class Gate:
    """Holds large commits back while it is closed, and notes all batches."""

    def __init__(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[Sequence[Commit]] = []
        self.at_work = self.most_at_work = 0
        self.loses_answers = False
        self.open = asyncio.Event()
        self.open.set()
        self._commit = desk.store.writes.commit
        monkeypatch.setattr(desk.store.writes, "commit", self._gated)

    @property
    def large(self) -> list[UUID]:
        """The tasks of the large commits, in the order in which they began."""
        return [one.task_id for batch in self.batches for one in batch if _is_large(one)]

    @property
    def most_bytes(self) -> int:
        """Bytes of content of the largest commit."""
        return max(_content_bytes(one) for batch in self.batches for one in batch)

    async def _gated(self, commits: Sequence[Commit], *how: Any) -> Mapping[UUID, Outcome]:
        self.batches.append(commits)
        if not any(map(_is_large, commits)):
            return await self._commit(commits, *how)
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            await self.open.wait()
            outcomes = await self._commit(commits, *how)
            if self.loses_answers:
                raise StoreUnavailable(timedelta(seconds=1))
            return outcomes
        finally:
            self.at_work -= 1


def _content_bytes(commit: Commit) -> int:
    return sum(len(row.content) for row in commit.rows)


def _is_large(commit: Commit) -> bool:
    return _content_bytes(commit) > _LARGE_BYTES


@pytest.fixture
def gate(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(desk, monkeypatch)


@asynccontextmanager
async def agents_of(desk: Desk, count: int) -> AsyncIterator[Sequence[DeskAgent]]:
    """Connect agents whose logs have one entry."""
    async with AsyncExitStack() as stack:
        agents = []
        for number in range(count):
            task_id = await new_task(desk.store, f"t{number}")
            agent = await stack.enter_async_context(desk.agent(task_id))
            await agent.append([entry(0)], open_epoch=True)
            await agent.all_acked()
            agents.append(agent)
        yield agents


async def replaced(agent: DeskAgent, times: int) -> None:
    """Replace the tail by a large one, so many times."""
    for _ in range(times):
        await agent.append([entry(0, f"{agent.sent} {LARGE}")])


async def test_small_changes_of_others_are_acked_while_a_large_one_is_written(
    desk: Desk, gate: Gate
) -> None:
    async with agents_of(desk, 3) as (large, *others):
        gate.open.clear()
        await replaced(large, 2)
        await until(lambda: gate.at_work == 1)
        for id_ in range(1, 11):
            for other in others:
                await other.append([entry(id_)])
                await other.all_acked()
        assert large.acked == 1, "I3"
        gate.open.set()
        await large.all_acked()


async def test_a_large_change_is_committed_alone_and_one_at_a_time(desk: Desk, gate: Gate) -> None:
    async with agents_of(desk, 6) as agents:
        gate.open.clear()
        for agent in agents[:4]:
            await replaced(agent, 1)
        for agent in agents[4:]:
            await agent.append([entry(1)])
        gate.open.set()
        for agent in agents:
            await agent.all_acked()
    assert gate.most_at_work == 1
    assert all(len(batch) == 1 for batch in gate.batches if any(map(_is_large, batch)))


async def test_large_senders_take_turns_and_what_waits_coalesces(desk: Desk, gate: Gate) -> None:
    async with agents_of(desk, 20) as agents:
        gate.open.clear()
        await replaced(agents[0], 1)
        await until(lambda: gate.at_work == 1)
        for _ in range(3):
            for agent in agents:
                await replaced(agent, 1)
        gate.open.set()
        for agent in agents:
            await agent.all_acked()
    tasks = [agent.session.task_id for agent in agents]
    assert gate.large[:20] == tasks
    # The first one was at work when it sent the rest, so it waited behind the others once.
    assert gate.large[20:] == tasks[:1]


async def test_the_changes_of_a_session_keep_their_order_and_never_overlap(
    desk: Desk, gate: Gate, store: Store
) -> None:
    async with agents_of(desk, 2) as (sender, other):
        gate.open.clear()
        await replaced(sender, 1)
        await until(lambda: gate.at_work == 1)
        await sender.append([entry(1, "small")])
        await sender.append([entry(2, LARGE)])
        await other.append([entry(1)])
        await other.all_acked()
        mine = sender.session.task_id
        begun = [one for batch in gate.batches for one in batch if one.task_id == mine]
        gate.open.set()
        await sender.append([entry(3, "small")])
        await sender.all_acked()
        committed = [one for batch in gate.batches for one in batch if one.task_id == mine]
    assert len(begun) == 2, "the opening of the epoch, and the first large change"
    assert [one.base_revision for one in committed[1:]] == [
        one.head.revision for one in committed[:-1]
    ], "I2"
    assert (await store.tasks.get(mine)).head.entries == 4
    acks = [one.sequence for one in sender.heard if isinstance(one, Ack)]
    assert acks == sorted(acks)


async def test_a_small_change_that_writes_a_large_row_is_large(desk: Desk, gate: Gate) -> None:
    """The stored parts outgrow the content: the next change folds them into the row."""
    async with agents_of(desk, 1) as (agent,):
        await agent.append([entry(1, LARGE)])
        await agent.all_acked()
        await agent.append(tail=grown(1, 900_000, "y"))
        await agent.all_acked()
        assert len(gate.large) == 1
        await agent.append([entry(2)])
        await agent.all_acked()
    assert gate.large == [agent.session.task_id] * 2, "the row of the sealed entry"
    assert all(len(batch) == 1 for batch in gate.batches if any(map(_is_large, batch)))


async def test_a_session_that_is_fenced_behind_a_large_change_ends_and_releases_its_bytes(
    desk: Desk, gate: Gate
) -> None:
    async with agents_of(desk, 2) as (first, second):
        gate.open.clear()
        for agent in (first, second):
            await replaced(agent, 2)
        await until(lambda: gate.at_work == 1)
        async with (
            desk.agent(first.session.task_id) as later_first,
            desk.agent(second.session.task_id) as later_second,
        ):
            await until(lambda: first.has_ended.is_set() and second.has_ended.is_set())
            gate.open.set()
            for later in (later_first, later_second):
                await later.append([entry(1)])
                await later.all_acked()
        assert isinstance(first.error, SessionSuperseded)
        assert isinstance(second.error, SessionSuperseded)
        # It had not been asked for its change.
        assert gate.large == [first.session.task_id]
        assert (first.acked, second.acked) == (1, 1), "I3, I4"
    await until(lambda: desk.budget.held_bytes == 0)


async def test_a_large_change_with_an_unknown_outcome_ends_its_session_alone(
    desk: Desk, gate: Gate, store: Store
) -> None:
    async with agents_of(desk, 2) as (large, other):
        gate.open.clear()
        gate.loses_answers = True
        await replaced(large, 1)
        await until(lambda: gate.at_work == 1)
        gate.open.set()
        await until(large.has_ended.is_set)
        assert isinstance(large.error, SessionLost)
        assert large.acked == 1, "I3"
        await other.append([entry(1)])
        await other.all_acked()
        gate.loses_answers = False
        async with desk.agent(large.session.task_id) as again:
            assert again.session.welcome.position.tail is not None
            await replaced(again, 1)
            await again.all_acked()
    assert desk.budget.held_bytes == 0


async def test_a_goodbye_waits_for_the_large_change_before_it(desk: Desk, gate: Gate) -> None:
    async with agents_of(desk, 1) as (agent,):
        gate.open.clear()
        await replaced(agent, 1)
        await until(lambda: gate.at_work == 1)
        leaving = asyncio.create_task(desk.sessions.goodbye(agent.session, GoodbyeReason.PAUSING))
        await asyncio.sleep(0)
        assert not leaving.done()
        gate.open.set()
        await leaving
        assert (await desk.store.tasks.get(agent.session.task_id)).head.revision == 3


async def test_an_epoch_that_opens_with_a_long_list_leaves_the_batches(
    desk: Desk, gate: Gate, store: Store
) -> None:
    async with agents_of(desk, 2) as (other, opening):
        gate.open.clear()
        entries = [entry(id_, "x" * 3_000) for id_ in range(1000)]
        sending = asyncio.create_task(opening.append(entries, open_epoch=True))
        await until(lambda: gate.at_work == 1)
        await other.append([entry(1)])
        await other.all_acked()
        assert opening.acked == 1, "I3"
        gate.open.set()
        await sending
        await opening.all_acked()
        assert (await store.tasks.get(opening.session.task_id)).head.entries == 1000
    assert gate.most_bytes <= 1024 * 1024


async def test_new_entries_wait_while_a_megabyte_of_others_does(desk: Desk, gate: Gate) -> None:
    async with agents_of(desk, 1) as (agent,):
        for id_ in range(1, 6):
            for _ in range(3):
                await agent.append([entry(id_, LARGE)])
        await agent.all_acked()
    assert gate.most_bytes <= 1024 * 1024


async def test_a_large_change_of_a_held_task_waits_for_its_rows_and_delays_no_large_one(
    desk: Desk, gate: Gate, sql: Connection
) -> None:
    async with agents_of(desk, 2) as (held, other):
        async with sql.transaction():
            await sql.execute(
                "SELECT FROM log_heads WHERE task_id = $1 FOR UPDATE", held.session.task_id
            )
            await replaced(held, 2)
            await until(lambda: desk.group_commit.held_tasks == 1)
            for _ in range(3):
                await replaced(other, 1)
                await other.all_acked()
            assert held.acked == 1
        await held.all_acked()
    assert gate.most_at_work <= 2


async def test_a_writer_with_a_large_commit_under_way_is_not_asked_again(
    desk: Desk, gate: Gate, store: Store
) -> None:
    log = await Log.open(store, await new_task(store))
    first, second = (log.commit([LARGE.encode()], open_epoch=True) for _ in range(2))
    writer = ScriptedWriter(replace(first, size_bytes=len(LARGE)), second)
    gate.open.clear()
    desk.group_commit.submit(writer)
    await until(lambda: gate.at_work == 1)
    desk.group_commit.submit(writer)
    async with agents_of(desk, 1):  # batches are written meanwhile
        assert len(writer.commits) == 1
    gate.open.set()
    await until(lambda: len(writer.committed_) + len(writer.errors) == 2)
