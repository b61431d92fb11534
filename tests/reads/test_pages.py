"""The page cache: what it holds, what it drops, and which pages answer which questions."""

from __future__ import annotations

import dataclasses
import gc
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from tasklogs_server.bus.local import LocalBus
from tasklogs_server.bus.notes import Deleted
from tasklogs_server.domain.names import TaskId, TaskName, TaskRef
from tasklogs_server.reads.reader import LogQuery
from tasklogs_server.store import Store
from tests.reads.page_reads import PageReads, page_reads
from tests.reads.written_log import WrittenLog, entry, many

OTHERS: dict[str, Any] = {
    "generation": "1/00000009",
    "serves_since": datetime(2001, 1, 1, tzinfo=UTC),
    "head_xmin": 1,
    "epoch": 9,
    "revision": 9,
}


async def written(reads: PageReads, *, bytes_: int = 100) -> WrittenLog:
    log = await WrittenLog.open(reads.store, reads.bus)
    log.hands_on_commits = True
    await log.entries(*many(3, size_bytes=bytes_), open_epoch=True)
    return log


async def test_a_page_in_memory_holds_no_request(reads: PageReads) -> None:
    """A request may have 256 KB, which the limit in bytes does not count."""
    ref = TaskId((await written(reads)).task_id)
    assert (await reads.read(ref, page_rows=1)).next_page_token
    assert reads.cache.pages
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, LogQuery) and one.ref == ref]


async def hits(reads: PageReads, log: WrittenLog, **fields: object) -> int:
    before = reads.cache.hits
    await reads.contents(log, **fields)
    return reads.cache.hits - before


@pytest.mark.parametrize("what", OTHERS)
async def test_a_page_is_of_a_state_only_if_all_of_its_version_is_the_same(
    reads: PageReads, what: str
) -> None:
    log = await written(reads)
    await reads.settled(log)
    [page] = reads.cache.pages
    assert page.is_of(page.state)
    version = page.state.version._replace(**{what: OTHERS[what]})
    assert not page.is_of(dataclasses.replace(page.state, version=version))


async def test_a_page_of_another_task_is_none_of_this_one(reads: PageReads) -> None:
    log = await written(reads)
    await reads.settled(log)
    [page] = reads.cache.pages
    assert not page.is_of(dataclasses.replace(page.state, task_id=uuid.uuid4()))


async def test_ids_names_and_ranges_with_the_same_entries_share_a_page(reads: PageReads) -> None:
    log = await written(reads)
    for ref in (TaskId(log.task_id), TaskName("local", str(log.task_id))):
        for tail in (None, 3, 100):
            for page_rows in (3, 1000):
                for _ in range(2):
                    await reads.read(ref, tail=tail, page_rows=page_rows)
    assert len(reads.cache.pages) == 1
    assert (await reads.read(TaskId(log.task_id), tail=2)).logs[0].id == 1
    assert len(reads.cache.pages) == 2


async def test_the_pages_of_a_log_are_kept_each(reads: PageReads) -> None:
    log = await written(reads)
    ref = TaskId(log.task_id)
    for number in range(2):
        first = await reads.read(ref, page_rows=2)
        rest = await reads.read(ref, page_rows=2, page_token=first.next_page_token)
        assert [one.id for one in (*first.logs, *rest.logs)] == [0, 1, 2]
        assert reads.cache.hits == 2 * number


async def test_requests_that_share_a_page_do_not_share_the_token_of_the_next_one(
    reads: PageReads,
) -> None:
    log = await written(reads)
    refs: list[TaskRef] = [TaskId(log.task_id), TaskName("local", str(log.task_id))]
    for _ in range(3):
        first, second = [await reads.read(ref, page_rows=2) for ref in refs]
        for ref, token in zip(refs, (first.next_page_token, second.next_page_token), strict=True):
            rest = await reads.read(ref, page_rows=2, page_token=token)
            assert [one.id for one in rest.logs] == [2]
    assert len(reads.cache.pages) == 2
    assert reads.cache.hits > 0


async def test_the_limit_in_bytes_holds_and_the_page_used_last_stays(store: Store) -> None:
    async with page_reads(store, LocalBus(), limit_bytes=100_000) as reads:
        logs = [await written(reads, bytes_=10_000) for _ in range(4)]
        await reads.settled(logs[0])
        for log in logs[1:]:
            await reads.settled(log)
            assert reads.cache.held_bytes <= 100_000
            assert await hits(reads, logs[0]) == 1
        assert await hits(reads, logs[1]) == 0
        assert reads.cache.held_bytes == sum(page.size_bytes for page in reads.cache.pages)


async def test_without_a_budget_nothing_is_kept(store: Store) -> None:
    async with page_reads(store, LocalBus(), limit_bytes=0) as reads:
        log = await written(reads)
        for _ in range(3):
            assert await hits(reads, log) == 0
        assert reads.cache.held_bytes == 0


async def test_many_questions_of_one_page_count_against_the_limit(store: Store) -> None:
    async with page_reads(store, LocalBus(), limit_bytes=50_000) as reads:
        log = await written(reads)
        for tail in range(3, 300):
            await reads.contents(log, tail=tail)
            assert reads.cache.held_bytes <= 50_000
        assert reads.cache.held_bytes == sum(page.size_bytes for page in reads.cache.pages)


async def test_a_tail_in_parts_is_held_once(reads: PageReads) -> None:
    log = await written(reads)
    await log.grow(2, "y" * 1000, keep_bytes=100)
    for tail in (None, 1, 2):
        for _ in range(2):
            await reads.contents(log, tail=tail)
    assert [len(page.questions) for page in reads.cache.pages if page.has_tail_parts] == [1]
    await log.fold()
    for tail in (None, 1, 2):
        await reads.contents(log, tail=tail)
    assert len(reads.cache.pages) == 3


async def test_a_deleted_task_has_no_pages(reads: PageReads) -> None:
    log = await written(reads)
    await reads.settled(log)
    reads.bus.publish(Deleted(log.task_id))
    assert reads.cache.held_bytes == 0
    assert not reads.cache.pages


async def test_after_a_commit_of_this_process_the_page_is_read_without_a_question(
    reads: PageReads, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await written(reads)
    await reads.settled(log)
    await log.entries(entry(3, "d"))
    with monkeypatch.context() as patched:
        patched.setattr(reads.store.states, "read", None)
        assert (await reads.contents(log))[-1] == "d"
    assert await hits(reads, log) == 1


async def test_a_page_that_another_process_changes_all_the_time_is_read_without_a_question(
    reads: PageReads, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await written(reads)
    log.bus = LocalBus()
    await reads.settled(log)
    await log.entries(entry(3, "d"))
    await reads.contents(log)  # it asked, and had to read
    await log.entries(entry(4, "e"))
    with monkeypatch.context() as patched:
        patched.setattr(reads.store.states, "read", None)
        assert (await reads.contents(log))[-1] == "e"
        assert (await reads.contents(log))[-1] == "e"
    assert await hits(reads, log) == 1


async def test_a_response_is_encoded_once_for_callers_who_are_told_the_same(
    reads: PageReads, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await written(reads)
    await reads.settled(log)
    with monkeypatch.context() as patched:
        patched.setattr(reads.reader, "_encode", None)
        await reads.contents(log)
    # It is made anew from the same entries for others.
    at = datetime(2100, 1, 1, tzinfo=UTC)
    monkeypatch.setattr(reads.reader, "_confirmed_at", lambda _, __: at)
    answer = await reads.read(TaskId(log.task_id))
    assert answer.snapshot_at.ToDatetime(UTC) == at
    assert len(answer.logs) == 3
