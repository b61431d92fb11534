"""Uploads that are too large for the group commit: many statements, one transaction."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from tasklogs.log.entry import Entry
from tasklogs_server.bus.notes import Moved, Note
from tasklogs_server.concurrency import slices
from tasklogs_server.domain.errors import (
    CommitRefused,
    LogFull,
    SessionSuperseded,
    StoreUnavailable,
    TaskNotFound,
)
from tasklogs_server.ingest import upload
from tasklogs_server.store import Store
from tasklogs_server.store.evictions import LogLimits
from tests.ingest.desk import GENEROUS, Desk, entry
from tests.ingest.test_upload import epochs
from tests.store.logs import Connection, new_task, waits_for_a_lock
from tests.support.fixtures.conditions import until

SMALL_SLICE = 3


@pytest.fixture(autouse=True)
def _every_upload_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "_LARGE_BYTES", 0)
    monkeypatch.setattr(slices, "SLICE_ITEMS", SMALL_SLICE)


def conversation(count: int) -> list[Entry]:
    return [entry(index, f"message {index}", seconds=index) for index in range(count)]


async def test_it_stores_what_the_group_commit_would_store(
    desk: Desk, task: UUID, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await new_task(desk.store, "other")
    lists = conversation(5), [*conversation(4), replace(conversation(5)[4], content=b"message 4!")]
    uploads = [*lists, conversation(11), [entry(0, "another")]]
    for entries in uploads:
        large = await desk.uploads.upload(task, entries)
        monkeypatch.setattr(upload, "_LARGE_BYTES", 1 << 30)
        grouped = await desk.uploads.upload(other, entries)
        monkeypatch.setattr(upload, "_LARGE_BYTES", 0)
        assert large == grouped
    heads = [(await desk.store.tasks.get(one)).head for one in (task, other)]
    assert heads[0] == heads[1]
    assert await epochs(desk, task) == await epochs(desk, other)
    rows = "SELECT epoch, ordinal, id, revision, head, content FROM log_entries WHERE task_id = $1"
    stored = [sorted(map(tuple, await sql.fetch(rows, one))) for one in (task, other)]
    assert stored[0] == stored[1]


@pytest.mark.parametrize("count", [SMALL_SLICE, 10])
async def test_uploading_the_same_again_changes_nothing(desk: Desk, task: UUID, count: int) -> None:
    first = await desk.uploads.upload(task, conversation(count))
    for entries in (conversation(count), conversation(count - 1), conversation(1)):
        assert (await desk.uploads.upload(task, entries)).revision == first.revision
    assert await epochs(desk, task) == [[f"message {index}" for index in range(count)]]


async def test_a_prefix_with_another_entry_in_a_later_slice_opens_an_epoch(
    desk: Desk, task: UUID
) -> None:
    await desk.uploads.upload(task, conversation(10))
    changed = conversation(9)
    changed[7] = replace(changed[7], content=b"other")
    await desk.uploads.upload(task, changed)
    assert [len(one) for one in await epochs(desk, task)] == [10, 9]


async def test_if_postgres_refuses_its_last_row_nothing_is_stored(
    desk: Desk, task: UUID, sql: Connection
) -> None:
    before = await desk.uploads.upload(task, conversation(2))
    await sql.execute("ALTER TABLE log_entries ADD CONSTRAINT no_nine CHECK (id <> 9) NOT VALID")

    with capture_logs() as logged, pytest.raises(CommitRefused):
        await desk.uploads.upload(task, conversation(10))

    assert [one["event"] for one in logged] == ["commit.refused"]
    assert (await desk.store.tasks.get(task)).head.revision == before.revision
    assert await epochs(desk, task) == [["message 0", "message 1"]]
    await desk.uploads.upload(task, conversation(9))  # the connection is still usable


async def test_a_fence_that_is_raised_meanwhile_stores_nothing(desk: Desk, task: UUID) -> None:
    async def rotated() -> None:
        await desk.store.tasks.rotate_token(task, b"another")

    with pytest.raises(SessionSuperseded):
        await desk.uploads.upload(task, conversation(10), still_opens=rotated)
    assert await epochs(desk, task) == []


async def test_a_task_that_is_deleted_meanwhile_is_not_found(
    desk: Desk, task: UUID, sql: Connection
) -> None:
    async def purged() -> None:
        await sql.execute("DELETE FROM log_heads WHERE task_id = $1", task)

    with pytest.raises(TaskNotFound):
        await desk.uploads.upload(task, conversation(10), still_opens=purged)


async def test_it_waits_for_a_locked_head_and_no_other_task_waits_for_it(
    desk: Desk, task: UUID, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await new_task(desk.store, "other")
    transaction = sql.transaction()
    is_locked = asyncio.Event()

    async def locked() -> None:
        await transaction.start()
        await sql.execute("SELECT FROM log_heads WHERE task_id = $1 FOR UPDATE", task)
        is_locked.set()

    uploading = asyncio.create_task(desk.uploads.upload(task, conversation(10), still_opens=locked))
    await is_locked.wait()  # a connection does one thing at a time
    await until(lambda: waits_for_a_lock(sql))
    monkeypatch.setattr(upload, "_LARGE_BYTES", 1 << 30)
    await desk.uploads.upload(other, conversation(3))
    await transaction.rollback()
    await uploading
    assert [len(one) for one in await epochs(desk, task)] == [10]


async def test_nobody_sees_a_part_of_it(desk: Desk, task: UUID, sql: Connection) -> None:
    await desk.uploads.upload(task, conversation(2))
    seen: list[int] = []

    async def watch() -> None:
        while True:
            seen.append(sum(map(len, await epochs(desk, task))))

    watching = asyncio.create_task(watch())
    await desk.uploads.upload(task, conversation(60))
    watching.cancel()
    await asyncio.wait([watching])
    assert set(seen) <= {2, 60}


async def test_followers_are_woken_without_the_commits(desk: Desk, task: UUID) -> None:
    notes: list[Note] = []
    desk.uploads._large_commits._bus.listen(notes.append)
    await desk.uploads.upload(task, conversation(10))
    assert notes == [Moved(task)]


async def test_a_cancelled_upload_stores_nothing(desk: Desk, task: UUID, sql: Connection) -> None:
    async with sql.transaction():
        await sql.execute("LOCK TABLE log_entries IN EXCLUSIVE MODE")
        uploading = asyncio.create_task(desk.uploads.upload(task, conversation(10)))
        await until(lambda: waits_for_a_lock(sql))
        uploading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await uploading
    assert await epochs(desk, task) == []
    await desk.uploads.upload(task, conversation(3))


async def test_a_log_that_is_too_small_for_it_is_full(store: Store, task: UUID) -> None:
    limits = LogLimits(rows=8, bytes=GENEROUS.bytes, min_retention=GENEROUS.min_retention)
    async with Desk.open(store, log_limits=limits) as desk:
        with pytest.raises(LogFull):
            await desk.uploads.upload(task, conversation(10))
        assert await epochs(desk, task) == []


async def test_a_commit_that_takes_too_long_is_given_up(
    desk: Desk, task: UUID, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasklogs_server.store.log_writes._TOGETHER_SECONDS", 0.2)
    async with sql.transaction():
        await sql.execute("LOCK TABLE log_entries IN EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable):
            await desk.uploads.upload(task, conversation(10))
    assert await epochs(desk, task) == []
