"""Commits: a compare-and-set for each task, independent of the other tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self
from uuid import UUID

import pytest

from tasklogs_server.domain.errors import TaskNotFound
from tasklogs_server.store import Store
from tasklogs_server.store.connections import Connections
from tasklogs_server.store.log_writes import Outcome
from tasklogs_server.store.records import Commit, EntryRow
from tests.store.logs import Connection, Log, entry_row, new_task, waits_for_a_lock
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until


async def test_a_commit_is_read_back(log: Log) -> None:
    assert await log.write(log.commit([b"a", b"b"], open_epoch=True)) is Outcome.COMMITTED
    assert await log.contents() == ["a", "b"]


async def test_a_commit_on_another_revision_writes_nothing(log: Log, sql: Connection) -> None:
    await log.write(log.commit([b"a"], open_epoch=True))
    late = replace(log.commit([b"b"]), base_revision=log.head.revision - 1)
    assert await log.write(late) is Outcome.MOVED
    assert await log.contents() == ["a"]


async def test_a_commit_below_the_fence_writes_nothing(log: Log) -> None:
    await log.write(log.commit([b"a"], open_epoch=True))
    mine = log.commit([b"mine"])
    later = await Log.open(log.store, log.task_id)
    assert later.fence > log.fence
    assert await log.write(mine) is Outcome.FENCED
    assert await later.write(later.commit([b"theirs"])) is Outcome.COMMITTED
    assert await later.contents() == ["a", "theirs"]


async def test_a_locked_head_is_skipped_and_the_other_commits_go_on(
    store: Store, log: Log, sql: Connection
) -> None:
    other = await Log.open(store, await new_task(store))
    commits = [log.commit([b"a"], open_epoch=True), other.commit([b"b"], open_epoch=True)]
    async with sql.transaction():
        await sql.execute("SELECT FROM log_heads WHERE task_id = $1 FOR UPDATE", log.task_id)
        outcomes = await asyncio.wait_for(store.writes.commit(commits), DEADLINE_SECONDS)
    assert outcomes == {log.task_id: Outcome.LOCKED, other.task_id: Outcome.COMMITTED}
    assert await log.contents() == []
    assert await log.write(commits[0]) is Outcome.COMMITTED


@dataclass
class Counted:
    """Counts how often a batch, or a part of it, was tried."""

    parts: list[int]

    @classmethod
    def of(cls, store: Store, monkeypatch: pytest.MonkeyPatch) -> Self:
        counted, commit_part = cls([]), store.writes._commit_part

        async def noted(commits: Sequence[Commit], connections: Connections) -> object:
            counted.parts.append(len(commits))
            return await commit_part(commits, connections)

        monkeypatch.setattr(store.writes, "_commit_part", noted)
        return counted


async def many(store: Store) -> Sequence[tuple[Log, Commit]]:
    logs = [await Log.open(store, await new_task(store)) for _ in range(100)]
    return [(log, log.commit([b"a"], open_epoch=True)) for log in logs]


async def test_a_batch_finds_the_task_whose_row_is_held_in_a_few_waits(
    store: Store, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = await many(store)
    counted = Counted.of(store, monkeypatch)
    held = commits[42][0]
    async with sql.transaction():
        await sql.execute(
            "INSERT INTO log_entries (task_id, epoch, ordinal, id, revision, head, content, type)"
            " VALUES ($1, 1, 0, 0, 1, '', '', 1)",
            held.task_id,
        )
        outcomes = await store.writes.commit([commit for _, commit in commits])
        assert {task for task, one in outcomes.items() if one is not Outcome.COMMITTED} == {
            held.task_id
        }
        assert outcomes[held.task_id] is Outcome.LOCKED
        assert len(counted.parts) <= 1 + 8 * 3
        # The transaction must not commit.
        await sql.execute("DELETE FROM log_entries WHERE task_id = $1", held.task_id)


async def test_a_batch_waits_for_few_locks_where_a_whole_table_is_locked(
    store: Store, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = await many(store)
    counted = Counted.of(store, monkeypatch)
    async with sql.transaction():
        await sql.execute("LOCK TABLE log_entries IN EXCLUSIVE MODE")
        outcomes = await store.writes.commit([commit for _, commit in commits])
    assert set(outcomes.values()) == {Outcome.LOCKED, Outcome.POSTPONED}
    assert len(counted.parts) <= 20
    outcomes = await store.writes.commit([commit for _, commit in commits])
    assert set(outcomes.values()) == {Outcome.COMMITTED}


async def test_a_commit_that_was_not_sent_is_not_undecided(store: Store, log: Log) -> None:
    store.circuit_breaker.lost()
    assert await log.write(log.commit([b"a"], open_epoch=True)) is Outcome.AWAY
    store.circuit_breaker.found()
    assert await log.write(log.commit([b"a"], open_epoch=True)) is Outcome.COMMITTED


async def test_a_commit_to_a_deleted_task_is_gone(store: Store, log: Log) -> None:
    await store.tasks.delete(log.task_id)
    assert await log.write(log.commit([b"a"], open_epoch=True)) is Outcome.GONE


def with_row(commit: Commit, row: EntryRow) -> Commit:
    return replace(commit, rows=[*commit.rows, row])


BAD_ROWS = {
    "an id that is no int32": replace(entry_row(1, 1, 3, b"x"), id=2**31),
    "the same place twice": entry_row(1, 0, 3, b"x"),
    "a content that is no bytes": replace(entry_row(1, 1, 3, b"x"), content="x"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("row", BAD_ROWS.values(), ids=BAD_ROWS.keys())
async def test_one_bad_row_stops_no_other_commit(store: Store, log: Log, row: EntryRow) -> None:
    others = [await Log.open(store, await new_task(store)) for _ in range(4)]
    commits = [other.commit([b"good"], open_epoch=True) for other in others]
    bad = with_row(log.commit([b"bad"], open_epoch=True), row)
    outcomes = await store.writes.commit([*commits[:2], bad, *commits[2:]])
    assert outcomes.pop(log.task_id) is Outcome.REFUSED  # type: ignore[attr-defined]
    assert set(outcomes.values()) == {Outcome.COMMITTED}
    for other in others:
        assert await other.contents() == ["good"]
    assert await log.contents() == []


async def test_the_confirmed_time_never_moves_back(log: Log, store: Store) -> None:
    await log.write(log.commit([b"a"], open_epoch=True))
    earlier = log.commit([b"b"])
    earlier = replace(earlier, head=replace(earlier.head, snapshot_at=None))
    assert await log.write(earlier) is Outcome.COMMITTED
    assert (await store.tasks.get(log.task_id)).head.snapshot_at is not None


async def test_a_time_of_an_earlier_session_is_stored_and_one_above_the_fence_is_not(
    log: Log, store: Store
) -> None:
    await log.write(log.commit([b"a"], open_epoch=True))
    at = log.head.snapshot_at
    assert at is not None
    later = await Log.open(store, log.task_id)
    await store.writes.confirm(
        [(log.task_id, log.fence, at.replace(year=2027))], generation=log.head.generation
    )
    assert (await store.tasks.get(log.task_id)).head.snapshot_at == at.replace(year=2027)
    await store.writes.confirm(
        [(log.task_id, later.fence + 1, at.replace(year=2028))], generation=log.head.generation
    )
    assert (await store.tasks.get(log.task_id)).head.snapshot_at == at.replace(year=2027)


async def test_the_ordinal_of_a_withdrawn_entry_is_used_again(log: Log, sql: Connection) -> None:
    await log.write(log.commit([b"a", b"b"], open_epoch=True))
    await log.write(log.commit(withdraw=True))
    assert await log.contents() == ["a"]
    await log.write(log.commit([b"c"]))
    assert await log.contents() == ["a", "c"]
    await log.write(log.commit([b"d"], withdraw=True))  # both in one commit
    assert await log.contents() == ["a", "d"]
    events = await sql.fetch("SELECT revision, id FROM log_events ORDER BY revision")
    assert [tuple(row) for row in events] == [(1, None), (4, 1), (6, 1)]


async def test_the_parts_of_a_withdrawn_tail_are_deleted(log: Log, sql: Connection) -> None:
    await log.write(log.commit([b"a"], open_epoch=True))
    await log.write(log.commit(grow=b"bc", keep=1))
    assert await log.contents() == ["abc"]
    await log.write(log.commit(withdraw=True))
    assert await log.contents() == []
    assert await sql.fetchval("SELECT count(*) FROM log_tail_parts") == 0


async def write_when_free(log: Log, commit: Commit) -> Outcome:
    while (outcome := await log.write(commit)) is Outcome.LOCKED:
        pass  # each waits for the lock, for a moment
    return outcome


async def test_nothing_is_visible_before_the_commit(
    log: Log, store: Store, sql: Connection
) -> None:
    """I5: a lock stops the commit after it has written its head and before its rows."""
    await log.write(log.commit([b"a"], open_epoch=True))
    async with sql.transaction():
        await sql.execute("LOCK TABLE log_events IN ACCESS EXCLUSIVE MODE")
        writing = asyncio.create_task(write_when_free(log, log.commit([b"b"], open_epoch=True)))
        await until(lambda: waits_for_a_lock(sql))
        page = await log.page()
        assert (page.revision, page.epoch) == (2, 1)
        assert await log.contents() == ["a"]
    assert await writing is Outcome.COMMITTED
    assert await log.contents() == ["b"]


async def test_a_fold_makes_one_row_of_the_parts_and_a_second_one_changes_nothing(
    log: Log, sql: Connection
) -> None:
    await log.write(log.commit([b"a"], open_epoch=True))
    await log.write(log.commit(grow=b"bc", keep=1))
    row = entry_row(1, 0, log.head.revision, b"abc")
    for _ in range(2):
        await log.store.writes.fold(
            log.task_id,
            generation=log.head.generation,
            fence=log.fence,
            revision=log.head.revision,
            row=row,
        )
        assert await log.contents() == ["abc"]
        assert await sql.fetchval("SELECT count(*) FROM log_tail_parts") == 0
        assert await sql.fetchval("SELECT content FROM log_entries") == b"abc"
    head = (await log.store.tasks.get(log.task_id)).head
    assert head.revision == log.head.revision
    assert head.tail is not None
    assert head.tail.part_bytes == 0


async def test_a_fold_on_another_revision_or_fence_changes_nothing(
    log: Log, sql: Connection
) -> None:
    await log.write(log.commit([b"a"], open_epoch=True))
    await log.write(log.commit(grow=b"bc", keep=1))
    row = entry_row(1, 0, log.head.revision, b"other")
    fold = log.store.writes.fold
    await fold(
        log.task_id,
        generation=log.head.generation,
        fence=log.fence,
        revision=log.head.revision - 1,
        row=row,
    )
    await fold(
        log.task_id,
        generation=log.head.generation,
        fence=log.fence + 1,
        revision=log.head.revision,
        row=row,
    )
    assert await log.contents() == ["abc"]
    assert await sql.fetchval("SELECT count(*) FROM log_tail_parts") == 1


async def test_a_fence_only_grows(store: Store, task: UUID) -> None:
    fences = [(await Log.open(store, task)).fence for _ in range(3)]
    assert fences == sorted(set(fences))
    await store.tasks.delete(task)
    with pytest.raises(TaskNotFound):
        await Log.open(store, task)
