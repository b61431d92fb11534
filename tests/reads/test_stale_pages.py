"""No read gets a stale page from memory, whatever happened to the log, the task or the store.

Each test first reads until the page comes from memory. The log is written by another process, as
far as the reader knows: nothing is noted to it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from tasklogs.v1 import types_pb2
from tasklogs_server.domain.description import NewTask
from tasklogs_server.domain.errors import CursorExpired, StoreUnavailable, TaskNotFound
from tasklogs_server.domain.names import TaskId, TaskName, TaskRef
from tasklogs_server.domain.read_plan import Source
from tasklogs_server.domain.status import NO_FACTS, Facts
from tasklogs_server.domain.synced import StoredState, Synced
from tasklogs_server.reads.pages import Page, Question
from tasklogs_server.store import Store
from tasklogs_server.store.evictions import EvictionOutcome, LogLimits
from tasklogs_server.store.log_reads import PageQuery
from tasklogs_server.store.task_states import AskedState
from tests.reads.page_reads import PageReads
from tests.reads.written_log import WrittenLog, entry, many
from tests.store.logs import Connection

ACTIVE = Facts(1, "START", "SUCCEEDED", "READY", "HEALTHY")  # type: ignore[arg-type]
PAUSED = Facts(2, "STOP", "SUCCEEDED", None, None)  # type: ignore[arg-type]


@pytest.fixture
async def other(database: str) -> AsyncIterator[Store]:
    """The store of another process on the same database."""
    opened = await Store.open(database, read_connections=4, lease=timedelta(seconds=30))
    yield opened
    await opened.close()


@pytest.fixture
async def log(other: Store) -> WrittenLog:
    """A log of three entries, a, b and c, which another process writes."""
    written = await WrittenLog.open(other)
    await written.entries(entry(0, "a"), entry(1, "b"), entry(2, "c"), open_epoch=True)
    return written


Change = Callable[[WrittenLog], Awaitable[None]]
CHANGES: dict[str, tuple[Change, list[str]]] = {
    "an entry": (lambda log: log.entries(entry(3, "d")), ["a", "b", "c", "d"]),
    "a tail that grows": (lambda log: log.grow(2, "!", keep_bytes=1), ["a", "b", "c!"]),
    "a withdrawn tail": (lambda log: log.withdraw(), ["a", "b"]),
    "a tail in place of a withdrawn one": (
        lambda log: log.withdraw(entry(3, "d")),
        ["a", "b", "d"],
    ),
    "an epoch that opens": (lambda log: log.entries(entry(0, "z"), open_epoch=True), ["z"]),
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("tail", [None, 5])
async def test_a_change_that_another_process_commits_is_in_the_next_read(
    reads: PageReads, log: WrittenLog, what: str, tail: int | None
) -> None:
    change, expected = CHANGES[what]
    assert await reads.settled(log, tail=tail) == ["a", "b", "c"]
    await change(log)
    assert await reads.contents(log, tail=tail) == expected
    assert await reads.settled(log, tail=tail) == expected


@pytest.mark.parametrize("what", CHANGES)
async def test_an_earlier_epoch_stays_as_it_was(
    reads: PageReads, log: WrittenLog, what: str
) -> None:
    change, _ = CHANGES[what]
    await log.entries(entry(0, "x"), entry(1, "y"), entry(2, "z"), open_epoch=True)
    assert await reads.settled(log, epoch=1) == ["a", "b", "c"]
    await change(log)
    assert await reads.contents(log, epoch=1) == ["a", "b", "c"]


async def test_a_commit_between_the_check_and_the_answer_is_in_the_next_read(
    reads: PageReads, log: WrittenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await reads.settled(log)
    read = reads.store.states.read

    async def then_commit(take: object) -> object:
        found = await read(take)  # type: ignore[arg-type]
        monkeypatch.undo()
        await log.entries(entry(3, "d"))
        return found

    monkeypatch.setattr(reads.store.states, "read", then_commit)
    assert await reads.contents(log) == ["a", "b", "c"]
    assert await reads.contents(log) == ["a", "b", "c", "d"]


async def test_a_page_that_was_read_slowly_replaces_no_later_one_for_good(
    reads: PageReads, log: WrittenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, read_it, go_on = reads.store.reads.page, asyncio.Event(), asyncio.Event()

    async def slowly(*query: object) -> object:
        found = await page(*query)  # type: ignore[arg-type]
        read_it.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(reads.store.reads, "page", slowly)
    slow = asyncio.create_task(reads.contents(log))
    await read_it.wait()
    monkeypatch.undo()
    await log.entries(entry(3, "d"))
    # Another question with the same answer.
    assert await reads.contents(log, tail=9) == ["a", "b", "c", "d"]
    go_on.set()
    assert await slow == ["a", "b", "c"]  # it was so when this read began
    assert await reads.contents(log, tail=9) == ["a", "b", "c", "d"]
    assert await reads.contents(log) == ["a", "b", "c", "d"]


async def test_an_eviction_is_in_the_next_read(reads: PageReads, log: WrittenLog) -> None:
    await log.entries(*many(40, first=3))
    before = await reads.read(TaskId(log.task_id))
    await reads.settled(log)
    limits = LogLimits(16, 1 << 30, timedelta(0))
    while (await log.store.evictions.evict(log.task_id, limits)).outcome is EvictionOutcome.EVICTED:
        pass
    after = await reads.read(TaskId(log.task_id))
    assert after.revision == before.revision
    assert after.first_id > before.first_id
    assert [one.id for one in after.logs] == list(range(after.first_id, 43))


async def test_a_later_page_whose_entries_are_evicted_is_refused(
    reads: PageReads, log: WrittenLog
) -> None:
    await log.entries(*many(40, first=3))
    first = await reads.read(TaskId(log.task_id), page_rows=4)
    for _ in range(3):
        await reads.read(TaskId(log.task_id), page_rows=4, page_token=first.next_page_token)
    limits = LogLimits(16, 1 << 30, timedelta(0))
    while (await log.store.evictions.evict(log.task_id, limits)).outcome is EvictionOutcome.EVICTED:
        pass
    with pytest.raises(CursorExpired):
        await reads.read(TaskId(log.task_id), page_rows=4, page_token=first.next_page_token)


async def test_a_deleted_task_is_not_found(reads: PageReads, log: WrittenLog) -> None:
    await reads.settled(log)
    await log.store.tasks.delete(log.task_id)
    with pytest.raises(TaskNotFound):
        await reads.contents(log)


async def test_a_name_that_another_task_has_taken_leads_to_that_task(
    reads: PageReads, log: WrittenLog
) -> None:
    name = TaskName("local", str(log.task_id))
    for _ in range(3):
        assert len((await reads.read(name)).logs) == 3
    await log.store.tasks.delete(log.task_id)
    taken = uuid.uuid4()
    await log.store.tasks.create(
        taken, NewTask("local", name.name, standalone=False), agent_token_hash=bytes(32)
    )
    answer = await reads.read(name)
    assert (answer.task_id, len(answer.logs)) == (str(taken), 0)


async def test_a_page_of_one_owner_is_not_found_by_another(
    reads: PageReads, log: WrittenLog
) -> None:
    await reads.settled(log)
    for _ in range(3):
        with pytest.raises(TaskNotFound):
            await reads.read(TaskId(log.task_id, "somebody else"))
        assert len((await reads.read(TaskId(log.task_id, "local"))).logs) == 3


async def test_a_status_that_changed_is_in_the_next_read(reads: PageReads, log: WrittenLog) -> None:
    await reads.settled(log)
    before = await reads.read(TaskId(log.task_id))
    await log.report(PAUSED)
    after = await reads.read(TaskId(log.task_id))
    assert before.status != after.status
    assert list(before.logs) == list(after.logs)


async def test_a_read_gets_no_state_that_a_caller_with_an_earlier_check_has_noted(
    reads: PageReads, log: WrittenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await reads.settled(log)
    [earlier] = [page.state for page in reads.cache.pages]
    await log.report(PAUSED)
    put = reads.cache.put

    def and_noted(question: Question, page: Page) -> Page:
        kept = put(question, page)
        kept.state = earlier
        return kept

    monkeypatch.setattr(reads.cache, "put", and_noted)
    reads.cache.clear()
    answer = await reads.read(TaskId(log.task_id))
    assert answer.status == types_pb2.TASK_STATUS_PAUSED


async def test_a_later_snapshot_at_is_in_the_next_read(reads: PageReads, log: WrittenLog) -> None:
    await reads.settled(log)
    at = datetime(2100, 1, 1, tzinfo=UTC)
    generation = log.store.generations.current
    await log.store.writes.confirm([(log.task_id, log.fence, at)], generation=generation)
    answer = await reads.read(TaskId(log.task_id))
    assert answer.snapshot_at.ToDatetime(UTC) == at


async def test_a_fold_of_parts_changes_no_answer(reads: PageReads, log: WrittenLog) -> None:
    await log.grow(2, "ontent", keep_bytes=1)
    await log.grow(2, "!", keep_bytes=7)
    assert await reads.settled(log) == ["a", "b", "content!"]
    before = await reads.read(TaskId(log.task_id))
    await log.fold()
    assert await reads.read(TaskId(log.task_id)) == before
    await log.entries(entry(3, "d"))
    assert await reads.contents(log) == ["a", "b", "content!", "d"]


async def test_after_a_restored_backup_a_revision_with_other_entries_is_not_answered_from_memory(
    reads: PageReads, log: WrittenLog, sql: Connection
) -> None:
    """A backup that is restored by SQL: the Postgres process and its generation stay."""
    saved = {
        table: await sql.fetch(f"SELECT * FROM {table} WHERE task_id = $1", log.task_id)
        for table in ("log_heads", "log_entries")
    }
    await log.entries(entry(3, "lost"))
    assert await reads.settled(log) == ["a", "b", "c", "lost"]
    for table, records in saved.items():
        await sql.execute(f"DELETE FROM {table} WHERE task_id = $1", log.task_id)
        await sql.copy_records_to_table(table, records=map(tuple, records))
    await log.reopen()
    await log.entries(entry(3, "another"))
    assert await reads.contents(log) == ["a", "b", "c", "another"]


async def test_after_a_failover_no_page_is_answered_from_memory(
    reads: PageReads, log: WrittenLog
) -> None:
    await reads.settled(log)
    assert reads.cache.held_bytes
    reads.store.generations.observe("1/00000001")
    assert not reads.cache.held_bytes
    assert await reads.contents(log) == ["a", "b", "c"]


async def test_while_postgres_is_away_no_page_is_kept(reads: PageReads, log: WrittenLog) -> None:
    await reads.settled(log)
    reads.store.circuit_breaker.lost()
    assert not reads.cache.held_bytes
    reads.store.circuit_breaker.found()
    assert await reads.contents(log) == ["a", "b", "c"]


async def live(reads: PageReads, log: WrittenLog, *, hits: int) -> list[str]:
    """Read live, and compare how many pages came from memory."""
    before = reads.cache.hits
    contents = await reads.contents(log, source=Source.LIVE)
    assert reads.cache.hits - before == hits
    return contents


async def test_a_live_read_with_nothing_new_asks_the_store_once(
    reads: PageReads, log: WrittenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log.report(ACTIVE)
    await reads.settled(log)
    asked: list[StoredState] = []

    async def nothing_new(known: StoredState) -> Synced:
        asked.append(known)
        monkeypatch.setattr(reads.store.states, "read", None)  # asking again would fail
        monkeypatch.setattr(reads.store.reads, "page", None)
        return Synced(datetime.now(UTC), log.fence, log.revision)

    reads.syncs.answer = nothing_new
    assert await live(reads, log, hits=2) == ["a", "b", "c"]
    assert len(asked) == 1


async def test_the_time_of_a_live_read_is_no_earlier_than_its_sync(
    reads: PageReads, log: WrittenLog
) -> None:
    """Also if a later sync has found more by then, and confirmed that."""
    await log.report(ACTIVE)
    await reads.settled(log)
    began_at = datetime(2100, 1, 1, tzinfo=UTC)

    async def nothing_new(_: StoredState) -> Synced:
        return Synced(began_at, log.fence, log.revision)

    reads.syncs.answer = nothing_new
    answer = await reads.read(TaskId(log.task_id), source=Source.LIVE)
    assert answer.snapshot_at.ToDatetime(UTC) == began_at


async def test_a_live_read_has_what_its_sync_brought(reads: PageReads, log: WrittenLog) -> None:
    await log.report(ACTIVE)
    await reads.settled(log)

    async def an_entry(_: StoredState) -> Synced:
        await log.entries(entry(3, "d"))
        return Synced(datetime.now(UTC), log.fence, log.revision)

    reads.syncs.answer = an_entry
    assert await live(reads, log, hits=1) == ["a", "b", "c", "d"]


async def test_a_live_read_is_not_answered_from_a_state_that_lacks_its_sync(
    reads: PageReads, log: WrittenLog
) -> None:
    """The store is behind what the session knows (I10), and it stays so."""
    await log.report(ACTIVE)
    await reads.settled(log)
    answers = [Synced(datetime.now(UTC), log.fence, log.revision + 1)]

    async def answer(_: StoredState) -> Synced:
        if len(answers) == 1:
            answers.append(Synced(datetime.now(UTC), log.fence, log.revision))
            return answers[0]
        return answers[1]

    reads.syncs.answer = answer
    assert await reads.contents(log, source=Source.LIVE) == ["a", "b", "c"]
    assert reads.syncs.refuted == [answers[0]]


@pytest.mark.parametrize("what", ["another generation", "Postgres is away"])
async def test_a_live_read_whose_store_changed_during_its_sync_asks_it_again(
    reads: PageReads, log: WrittenLog, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    await log.report(ACTIVE)
    await reads.settled(log)
    # Even if the page were still in memory.
    monkeypatch.setattr(reads.cache, "clear", lambda: None)
    store = reads.store
    read: list[object] = []

    async def meanwhile(known: StoredState) -> Synced:
        if what == "another generation":
            monkeypatch.setattr(store.generations, "_current", "9/00000009")
        else:
            monkeypatch.setattr(store.circuit_breaker, "_is_away", True)
        return Synced(datetime.now(UTC), log.fence, log.revision)

    async def again(*_: object, **__: object) -> None:
        read.append(None)
        raise StoreUnavailable(timedelta(seconds=1))

    async def meanwhile_then(known: StoredState) -> Synced:
        synced = await meanwhile(known)
        monkeypatch.setattr(store.states, "read", again)
        return synced

    reads.syncs.answer = meanwhile_then
    with pytest.raises(StoreUnavailable):
        await reads.contents(log, source=Source.LIVE)
    assert read


async def test_a_task_whose_rows_are_slow_delays_others_once(
    reads: PageReads, log: WrittenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await WrittenLog.open(log.store)
    await other.entries(entry(0, "x"), open_epoch=True)
    await reads.settled(log)
    await reads.settled(log, tail=1)
    await reads.settled(other)
    states, page = reads.store.states.read, reads.store.reads.page
    asked: list[set[object]] = []

    async def slow_states(take: Callable[[], Sequence[AskedState]]) -> object:
        taken = take()
        refs: set[object] = {one.ref for one in taken}
        asked.append(refs)
        if TaskId(log.task_id) in refs:
            await asyncio.Event().wait()
        return await states(lambda: taken)

    async def slow_page(ref: TaskRef, query: PageQuery) -> object:
        if ref == TaskId(log.task_id):
            await asyncio.Event().wait()
        return await page(ref, query)

    monkeypatch.setattr(reads.store.states, "read", slow_states)
    monkeypatch.setattr(reads.store.reads, "page", slow_page)
    stuck = [asyncio.create_task(reads.contents(log))]
    # This read is in the same statement, and then reads for itself.
    assert await reads.contents(other) == ["x"]
    stuck.append(asyncio.create_task(reads.contents(log)))
    stuck.append(asyncio.create_task(reads.contents(log, tail=1)))
    assert await reads.settled(other) == ["x"]
    assert asked == [{TaskId(log.task_id), TaskId(other.task_id)}, {TaskId(other.task_id)}]
    for one in stuck:
        one.cancel()
    await asyncio.wait(stuck)


async def test_the_facts_of_a_state_are_those_of_the_store(
    reads: PageReads, log: WrittenLog
) -> None:
    await reads.settled(log)
    asked = [AskedState(TaskId(log.task_id), None)]
    [state] = await reads.store.states.read(lambda: asked)
    assert not isinstance(state, Exception)
    assert state.detail.facts == NO_FACTS
    assert state.stored == StoredState(log.fence, log.revision, None, log.store.process_id)
